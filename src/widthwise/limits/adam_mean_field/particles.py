"""Particles of a one-hidden-layer network under Adam: how they are drawn, what they compute."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import ndtri
from scipy.stats import qmc

from widthwise.entrywise import entrywise
from widthwise.learner import Entrywise
from widthwise.limits.adam_mean_field.constants import Layer
from widthwise.limits.descent import loss_slope
from widthwise.solve import float64

ROWS = 256  # rows that particles read at once
BITS = 30  # of Sobol's points


class Particles(NamedTuple):
    """Neurons (u, b, v) of equal weight, and the output bias c."""

    weight: Float[Array | np.ndarray, "s d"]
    bias: Float[Array | np.ndarray, " s"]
    readout: Float[Array | np.ndarray, "s k"]
    constant: Float[Array | np.ndarray, " k"]


class Rule(eqx.Module):
    """What a compiled step depends on: the layer, and the learner without step size and length."""

    layer: Layer
    learner: Entrywise


def drawn(
    layer: Layer, axes: Float[np.ndarray, "d d"], outputs: int, count: int, seed: int
) -> Particles:
    """`count` particles: scrambled Sobol points, each with both signs of its readout weights.

    (u, b, v) and (u, b, -v) are equally likely, so both may be drawn together; the function then
    starts at zero, as it does at infinite width. Coordinates are used up from the first, which are
    the most even: readout, bias, inputs along `axes`, the directions in which rows differ most.
    """
    d, random_bias = len(axes), layer.tensors[1].std > 0
    sobol = qmc.Sobol(outputs + random_bias + d, bits=BITS, rng=np.random.default_rng(seed))
    points = sobol.random(count // 2) + 0.5 ** (BITS + 1)  # centres of cells: neither 0 nor 1
    normal = ndtri(points)
    of_weight, of_bias, of_readout, _ = layer.tensors
    readout = of_readout.std * normal[:, :outputs]
    bias = of_bias.std * normal[:, outputs] if random_bias else np.zeros(count // 2)
    weight = of_weight.std * normal[:, outputs + random_bias :] @ axes
    return Particles(
        np.tile(weight, (2, 1)), np.tile(bias, 2), np.concatenate([readout, -readout]),
        np.zeros(outputs),
    )  # fmt: skip


def principal_axes(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """Orthonormal rows, those along which the rows of x are largest first."""
    return np.linalg.eigh(x.T @ x)[1].T[::-1]


def features(layer: Layer, particles: Particles, x: Float[Array, "n d"]) -> Float[Array, "n s"]:
    h = x @ particles.weight.T + particles.bias
    return h if layer.activation is None else layer.activation(h)


def function(layer: Layer, particles: Particles, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """The mean over particles: the infinitely wide network's outputs."""
    mean = features(layer, particles, x) @ particles.readout / len(particles.bias)
    return mean + particles.constant


def outputs(layer: Layer, particles: Particles, x: Float[np.ndarray, "n d"]) -> np.ndarray:
    """`function` at any number of rows."""
    with float64():
        parts = [x[i : i + ROWS] for i in range(0, max(len(x), 1), ROWS)]
        found = [np.asarray(_function(layer, particles, jnp.asarray(part))) for part in parts]
    return np.concatenate(found)


def feature_kernel(layer: Layer, particles: Particles, x: Float[np.ndarray, "n d"]) -> np.ndarray:
    """E[x x'] of the hidden layer's features."""
    with float64():
        found = np.asarray(_features(layer, particles, jnp.asarray(x)))
    return found @ found.T / found.shape[1]


_function = jax.jit(function, static_argnums=0)
_features = jax.jit(features, static_argnums=0)


def memory_at_rest(rule: Rule, particles: Particles):
    """The optimiser's moments of every particle, before the first step."""
    with float64():
        return jax.tree.map(np.asarray, entrywise(rule.learner).init(_as_jax(particles)))


def advance(
    rule: Rule, lr: float, steps: tuple[int, int], moving: tuple, data: tuple,
    rows: Int[np.ndarray, "steps batch"] | None, factors: Float[np.ndarray, " steps"],
) -> tuple:  # fmt: skip
    """(particles, moments) after the steps from `steps[0]` to `steps[1]`."""
    with float64():
        found = _advance(rule, lr, *steps, *_as_jax(moving), *_as_jax(data), rows, factors)
        return jax.tree.map(np.asarray, found)


@functools.partial(jax.jit, static_argnums=0)
def _advance(rule: Rule, lr, before, now, particles, moments, x, y, rows, factors):
    """Steps `before` to `now`, which are traced: every stretch of a run is one compilation."""
    learner, tensors = rule.learner, rule.layer.tensors
    # a neuron's own gradient: in a mean over particles it has 1 / count of a share
    grow = [t.gradient * len(particles.bias) for t in tensors[:3]] + [tensors[3].gradient]

    def step(number, carry):
        particles, moments = carry
        inputs, targets = (x, y) if rows is None else (x[rows[number]], y[rows[number]])
        out, pull = jax.vjp(lambda p: function(rule.layer, p, inputs), particles)
        (mean,) = pull(loss_slope(out, targets, learner.loss) / len(inputs))
        seen = Particles(*(g * one for g, one in zip(grow, mean, strict=True)))
        answer: Any
        answer, moments = entrywise(learner).update(seen, moments)
        pace = lr * factors[number]
        moved = (
            (1.0 - pace * learner.weight_decay * t.trained) * w - pace * t.step * u
            for t, w, u in zip(tensors, particles, answer, strict=True)
        )
        return Particles(*moved), moments

    return jax.lax.fori_loop(before, now, step, (particles, moments))


def _as_jax(tree) -> Any:
    return jax.tree.map(jnp.asarray, tree)
