"""The pi-limit: forward, backward and step of an infinitely wide network whose gradients are
projected onto r random directions of each hidden layer.

Pre-activations of layer l are Z.g^l with Z standard Gaussian and g^l of r numbers, so a batch is
carried by its g. Layer 1 reads the inputs, g^1 = gain x A_1 + bias; the others the features before
them, g^l = gain F_l(g^(l-1)) + bias; the last g is the output.
"""

import functools
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widthwise.limits.pi import rows
from widthwise.limits.pi.pairs import AbstractPairs
from widthwise.limits.pi.rows import Operator

ClipBy = Literal["tensor", "global"]


class LayerRule(NamedTuple):
    """Constants of one layer: multipliers of its weights and bias, and of their step sizes."""

    gain: float = 1.0
    bias_gain: float = 0.0
    rate: float = 1.0
    bias_rate: float = 1.0


class Rules(eqx.Module):
    """What a step depends on and does not change: layers first to last, and the optimiser."""

    layers: tuple[LayerRule, ...]
    pairs: tuple[AbstractPairs, ...]  # one between two layers
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_by: ClipBy = "tensor"


class State(NamedTuple):
    """Weights of all layers, and the velocities of the first layer and the biases."""

    first: Float[Array, "d r"]
    operators: tuple[Operator, ...]
    biases: tuple[Float[Array, " k"], ...]
    first_velocity: Float[Array, "d r"]
    bias_velocities: tuple[Float[Array, " k"], ...]


class Pass(NamedTuple):
    """A batch on its way forward: its inputs, every layer's g, and the products with the rows."""

    x: Float[Array, "n d"]
    g: tuple[Float[Array, "n k"], ...]
    products: tuple[Any, ...]


class NewRows(NamedTuple):
    """The gradient of one operator: rows of coefficients A at points B."""

    a: Float[Array, "n k"]
    b: Float[Array, "n r"]


class Gradient(NamedTuple):
    """The loss's projected gradient, tensor by tensor."""

    first: Float[Array, "d r"]
    operators: tuple[NewRows | None, ...]
    biases: tuple[Float[Array, " k"], ...]


def state_of(first, operators, biases) -> State:
    """A state at rest."""
    biases = tuple(biases)
    still = tuple(jnp.zeros_like(b) for b in biases)
    return State(first, tuple(operators), biases, jnp.zeros_like(first), still)


def forward(rules: Rules, state: State, x: Float[Array, "n d"], layers: int | None = None) -> Pass:
    """Carries inputs through the first `layers` layers, all of them unless given."""
    depth = len(rules.layers) if layers is None else layers
    found, products = [], []
    for index in range(depth):
        own = rules.layers[index]
        if index == 0:
            read = _product(x, state.first)
        else:
            read, seen = rows.apply(rules.pairs[index - 1], state.operators[index - 1], found[-1])
            products.append(seen)
        found.append(_joined(own, read, state.biases[index]))
    return Pass(x, tuple(found), tuple(products))


def backward(rules: Rules, state: State, carried: Pass, d_last: Float[Array, "n k"]) -> Gradient:
    """The projected gradient, given the loss's slope in the last g of `carried`.

    Layers that it did not reach have a gradient of None, and zero for their biases.
    """
    depth, d_g = len(carried.g), d_last
    operators: list[NewRows | None] = [None] * len(state.operators)
    biases = [jnp.zeros_like(b) for b in state.biases]
    for index in reversed(range(1, depth)):
        pairs, before = rules.pairs[index - 1], carried.g[index - 1]
        d_read, new, biases[index] = _taken(rules.layers[index], pairs, before, d_g)
        operators[index - 1] = new
        d_g = rows.pull_back(
            pairs, state.operators[index - 1], before, carried.products[index - 1], d_read
        )
    first, biases[0] = _taken_first(rules.layers[0], carried.x, d_g)
    return Gradient(first, tuple(operators), tuple(biases))


@jax.jit
def _product(x, weights):
    return x @ weights


@functools.partial(jax.jit, static_argnums=0)
def _joined(rule, read, bias):
    return rule.gain * read + rule.bias_gain * bias


@functools.partial(jax.jit, static_argnums=(0, 1))
def _taken(rule, pairs, before, d_g):
    """(slope in what an operator read, its new rows, the slope in its bias)."""
    d_read = rule.gain * d_g
    point, factor = pairs.stored(before)
    new = NewRows(factor[:, None] * d_read, point)
    return d_read, new, rule.bias_gain * jnp.sum(d_g, axis=0)


@functools.partial(jax.jit, static_argnums=0)
def _taken_first(rule, x, d_g):
    return rule.gain * (x.T @ d_g), rule.bias_gain * jnp.sum(d_g, axis=0)


def norms(rules: Rules, gradient: Gradient) -> list[Float[Array, ""]]:
    """Frobenius norms of the gradient's tensors: first, operators, biases; absent ones are 0."""
    found = [jnp.sqrt(jnp.sum(gradient.first**2))]
    for pairs, new in zip(rules.pairs, gradient.operators, strict=True):
        if new is None:
            found.append(jnp.zeros(()))
            continue
        kernel = gram(pairs, new.b)
        found.append(jnp.sqrt(jnp.maximum(jnp.sum((new.a @ new.a.T) * kernel), 0.0)))
    return found + [jnp.sqrt(jnp.sum(b**2)) for b in gradient.biases]


def gram(pairs: AbstractPairs, points: Float[Array, "n r"]) -> Float[Array, "n n"]:
    """V00 of stored points among each other."""
    sizes = jnp.sum(points**2, axis=1)
    return pairs.value(points @ points.T, sizes, sizes)


def feature_kernel(pairs: AbstractPairs, g: Float[Array, "n r"]) -> Float[Array, "n n"]:
    """E f(Z.g) f(Z.g') of inputs among each other."""
    points, factor = pairs.stored(g)
    return factor[:, None] * gram(pairs, points) * factor


@functools.partial(jax.jit, static_argnums=0)
def clipped(rules: Rules, gradient: Gradient, bound) -> tuple[Gradient, list[Float[Array, ""]]]:
    """The gradient with norms of `bound` at most, and the norms it had."""
    sizes = norms(rules, gradient)
    if rules.clip_by == "global":
        total = jnp.sqrt(sum(size**2 for size in sizes))
        scales = [jnp.minimum(1.0, bound / jnp.maximum(total, 1e-30))] * len(sizes)
    else:
        scales = [jnp.minimum(1.0, bound / (1e-10 + size)) for size in sizes]
    first, rest = scales[0], scales[1:]
    count = len(gradient.operators)
    operators = tuple(
        None if new is None else NewRows(scale * new.a, new.b)
        for scale, new in zip(rest[:count], gradient.operators, strict=True)
    )
    biases = tuple(s * b for s, b in zip(rest[count:], gradient.biases, strict=True))
    return Gradient(first * gradient.first, operators, biases), sizes


def step(rules: Rules, state: State, gradient: Gradient, lr: float) -> State:
    """One step of gradient descent: velocities, then weights; operators grow by the batch."""
    decay = lr * rules.weight_decay
    operators = []
    for rule, operator, new in zip(
        rules.layers[1:], state.operators, gradient.operators, strict=True
    ):
        if rules.momentum or decay:
            operator = rows.stepped(operator, lr * rule.rate, rules.momentum, decay)
        if new is not None and rule.rate:
            operator = rows.append(operator, new.a, new.b, -lr * rule.rate, 1.0)
        operators.append(operator)
    return _dense_step(rules, state._replace(operators=()), gradient, lr)._replace(
        operators=tuple(operators)
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _dense_step(rules, state, gradient, lr):
    """The first layer and the biases."""

    def moved(weight, velocity, slope, rate):
        # decay is a share of the step size, not of the layer's own rate, and beside momentum
        velocity = rules.momentum * velocity + slope
        return (1 - lr * rules.weight_decay) * weight - lr * rate * velocity, velocity

    first, speed = moved(state.first, state.first_velocity, gradient.first, rules.layers[0].rate)
    biases = [
        moved(bias, velocity, slope, rule.bias_rate)
        for rule, bias, velocity, slope in zip(
            rules.layers, state.biases, state.bias_velocities, gradient.biases, strict=True
        )
    ]
    return State(first, (), tuple(b for b, _ in biases), speed, tuple(v for _, v in biases))
