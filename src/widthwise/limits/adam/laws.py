"""The laws of a lazy network's fields: Gaussian forward and backward, of known covariance.

h^l ~ GP(0, Sigma^l) are a neuron's pre-activations at all rows, dx^l ~ GP(0, D^l) the outputs'
slopes in its features, independent of h^l, both in units of order one.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.sites import Sites, variance
from widthwise.network.moments import Moments, Tangent
from widthwise.solve import float64

TILE = 512  # rows of a tile of a matrix


class Laws(NamedTuple):
    """The inputs' products at pairs of rows; covariances of the fields of every hidden layer, first
    to last, and then E f(h) f(h') and E f'(h) f'(h') of its nonlinearity."""

    inputs: Float[np.ndarray, "*s"]
    forward: tuple[Float[np.ndarray, "*s"], ...]
    backward: tuple[Float[np.ndarray, "*s"], ...]
    features: tuple[Float[np.ndarray, "*s"], ...]
    slopes: tuple[Float[np.ndarray, "*s"], ...]


def laws(
    sites: Sites, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"] | None = None
) -> Laws:
    """Between rows, or of rows among themselves, in float64."""
    other = x if y is None else y
    shape = len(x), len(other)
    wholes = tuple([np.empty(shape) for _ in sites.hidden] for _ in range(3))
    with float64():
        for i in range(0, len(x), TILE):
            for j in range(0 if y is not None else i, len(other), TILE):
                a, b = slice(i, i + TILE), slice(j, j + TILE)
                same = y is None and i == j
                found = _pairs(sites, _padded(x[a]), None if same else _padded(other[b]))
                for whole, part in zip(sum(wholes, []), sum(found, []), strict=True):
                    whole[a, b] = np.asarray(part)[: len(x[a]), : len(other[b])]
                    if y is None:
                        whole[b, a] = whole[a, b].T
    return _laws(sites, x @ other.T, *wholes)


def own_laws(sites: Sites, x: Float[np.ndarray, "m d"]) -> Laws:
    """Of each row with itself: variances."""
    with float64():
        parts = _alone(sites, _padded(x))
    return _laws(
        sites,
        np.sum(x**2, axis=1),
        *([np.asarray(one)[: len(x)] for one in found] for found in parts),
    )


def _laws(sites: Sites, inputs, forward, features, slopes) -> Laws:
    backward = [np.full(slopes[-1].shape, variance(sites.readout.weight))]
    for site, slope in zip(sites.hidden[:0:-1], slopes[:0:-1], strict=True):
        backward.insert(0, variance(site.weight) * backward[0] * slope)
    return Laws(inputs, tuple(forward), tuple(backward), tuple(features), tuple(slopes))


def _padded(x: np.ndarray) -> jax.Array:
    size = max(8, 1 << (len(x) - 1).bit_length())  # few compilations
    return jnp.asarray(np.pad(x, ((0, size - len(x)), (0, 0)), mode="edge"))


@functools.partial(jax.jit, static_argnums=0)
def _pairs(sites, x, y):
    """(covariances of h, E f(h) f(h'), E f'(h) f'(h')) of each hidden layer."""
    moments, forward, features, slopes = Moments.of(x, y), [], [], []
    for number, site in enumerate(sites.hidden):
        fan_in = x.shape[1] if number == 0 else 1
        weight, bias = variance(site.weight, fan_in), variance(site.bias)
        moments = moments.affine(Tangent(weight, 0.0, 1.0), Tangent(bias, 0.0, 0.0))
        forward.append(moments.xy)
        # what a tangent kernel of 1 becomes is the slopes' covariance
        moments = eqx.tree_at(lambda m: m.ntk, moments, jnp.ones_like(moments.ntk))
        if site.activation is not None:
            moments = site.activation.kernel(None, moments)
        features.append(moments.xy)
        slopes.append(moments.ntk)
    return forward, features, slopes


@functools.partial(jax.jit, static_argnums=0)
def _alone(sites, x):
    found = jax.vmap(lambda row: _pairs(sites, row[None], None))(x)
    return jax.tree.map(lambda one: one[:, 0, 0], found)
