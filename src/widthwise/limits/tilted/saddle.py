"""One round of the saddle: the laws of all layers' units, their Gram matrices, and the tilts."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widthwise.limits.dkm.layers import of_gram
from widthwise.limits.tilted.law import (
    WANTED,
    WIDEST,
    Functions,
    activated,
    energy,
    grid,
    trajectory,
)

JITTER = 1e-10  # of a prior covariance's mean diagonal, added to it
PACE = 0.3  # share of the way to its target that a tilt goes in a round, at most
BOLD = 0.25  # change of a tilt in a round, at most, in units of the inverse Gram matrix
ADAPTING = 0.1  # change of a leap's logarithm for each unit of acceptance


class Hidden(NamedTuple):
    """A hidden layer of weights: the functions behind it, its nu, whether its law is on a grid."""

    functions: Functions
    nu: float
    exact: bool


class Posed(NamedTuple):
    """All that the saddle reads and nothing chooses.

    `first` (n, n) is the prior covariance of the first hidden layer and `root` (n, r) one of its
    roots; `affine` has the variance of weights and of biases of every later layer, the readout
    last.
    """

    first: Any
    root: Any
    affine: tuple[tuple[float, float], ...]
    y: Any
    noise: float


class Place(NamedTuple):
    """Where a hidden layer stands.

    `z` (s, r) are the chains of a law that is sampled, and `leap` their step; `gram` is
    E[phi phi^T] and `spread` E[z z^T]; `tilt` is Lambda and `left` how far it is from its target,
    in units of the inverse Gram matrix. None where there is none, as under an infinite nu.
    """

    gram: Any
    z: Any = None
    spread: Any = None
    tilt: Any = None
    leap: Any = None
    left: Any = None


def ruled(functions: Functions, covariance: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """E[phi phi^T] of Gaussian features, by the functions' own rules."""
    moments: Any = of_gram(covariance)
    for function in functions:
        moments = function.kernel(None, moments)
    return moments.xy


def root_of(covariance: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """A lower triangular root, with jitter."""
    jitter = JITTER * jnp.mean(jnp.diagonal(covariance))
    return jnp.linalg.cholesky(covariance + jitter * jnp.eye(len(covariance)))


def begun(hidden: tuple[Hidden, ...], posed: Posed, chains: int, key: Array) -> tuple[Place, ...]:
    """Every layer at its prior, `chains` draws of each law that is sampled."""
    places, covariance, rank = [], posed.first, posed.root.shape[1]
    for layer, (weight, bias), own in zip(
        hidden, posed.affine, jax.random.split(key, len(hidden)), strict=True
    ):
        gram, rows = ruled(layer.functions, covariance), len(covariance)
        if math.isinf(layer.nu):
            places.append(Place(gram))
        else:
            z = None if layer.exact else jax.random.normal(own, (chains, rank))
            tilt, leap = jnp.zeros((rows, rows)), jnp.asarray(WIDEST / 2)
            places.append(Place(gram, z, jnp.eye(rank), tilt, leap, jnp.asarray(jnp.inf)))
        covariance, rank = weight * gram + bias, rows
    return tuple(places)


def priors(posed: Posed, grams: list[Any]) -> tuple[list[Any], list[Any]]:
    """The prior covariance of every layer of weights, the readout included, and their roots."""
    covariances = [posed.first]
    covariances += [w * g + b for (w, b), g in zip(posed.affine, grams, strict=True)]
    return covariances, [posed.root, *map(root_of, covariances[1:-1])]


def round_of(
    hidden: tuple[Hidden, ...],
    posed: Posed,
    places: tuple[Place, ...],
    gain: Any,
    adapting: Any,
    key: Array,
) -> tuple[Place, ...]:
    """Every law one trajectory on, from the first layer to the last, and every tilt a step nearer
    to its target, from the last to the first. `gain` is the share that the new moments have in the
    ones that are kept."""
    found, covariance, root = [], posed.first, posed.root
    keys = jax.random.split(key, len(hidden))
    for number, (layer, place, own) in enumerate(zip(hidden, places, keys, strict=True)):
        if number:
            weight, bias = posed.affine[number - 1]
            covariance = weight * found[-1].gram + bias
            root = root_of(covariance)
        found.append(_onward(layer, place, covariance, root, gain, adapting, own))
    covariances, roots = priors(posed, [place.gram for place in found])
    slope = readout_slope(covariances[-1], posed)
    for number in reversed(range(len(hidden))):
        layer, place = hidden[number], found[number]
        slope = posed.affine[number][0] * slope  # in the Gram matrix
        if place.tilt is None:
            back = jax.vjp(functools.partial(ruled, layer.functions), covariances[number])[1]
            slope = _symmetric(back(slope)[0])
        else:
            found[number] = _tilted(layer, place, roots[number], -2 / layer.nu * slope)
            slope = -layer.nu / 2 * _prior_slope(roots[number], place.spread)
    return tuple(found)


def _onward(layer: Hidden, place: Place, covariance, root, gain, adapting, key) -> Place:
    """A layer whose law has moved on, its moments with it."""
    if place.tilt is None:
        return Place(ruled(layer.functions, covariance))
    if layer.exact:
        z, weights = grid(layer.functions, root, place.tilt)
        leap = place.leap
    else:
        z, accepted = trajectory(
            layer.functions, root, place.tilt, place.z, root_of(place.spread), place.leap, key
        )
        weights = jnp.full(len(z), 1 / len(z))
        leap = place.leap * jnp.exp(adapting * ADAPTING * (accepted - WANTED))
        leap = jnp.minimum(leap, WIDEST)
    features = activated(layer.functions, z @ root.T)
    gram, spread = second(features, weights), second(z, weights)
    return place._replace(
        gram=place.gram + gain * (gram - place.gram),
        spread=place.spread + gain * (spread - place.spread),
        z=None if layer.exact else z,
        leap=leap,
    )


def second(rows: Float[Array, "s n"], weights: Float[Array, " s"]) -> Float[Array, "n n"]:
    """The weighted mean of rows' outer squares."""
    return rows.T @ (weights[:, None] * rows)


def readout_slope(covariance: Float[Array, "n n"], posed: Posed) -> Float[Array, "n n"]:
    """The derivative of log p(y) in the covariance of the outputs."""
    lower = jnp.linalg.cholesky(covariance + posed.noise * jnp.eye(len(covariance)))
    inverse = jax.scipy.linalg.cho_solve((lower, True), jnp.eye(len(covariance)))
    weights = inverse @ posed.y
    return -(posed.y.shape[1] * inverse - weights @ weights.T) / 2


def _prior_slope(root: Float[Array, "n r"], spread: Float[Array, "r r"]) -> Float[Array, "n n"]:
    """K^-1 - K^-1 E[f f^T] K^-1 where K = R R^T and f = R z: twice the derivative, in K, of the
    divergence of a law from N(0, K)."""
    middle = jnp.eye(len(spread)) - spread
    half = jax.scipy.linalg.solve_triangular(root, middle, lower=True, trans=1)
    return _symmetric(jax.scipy.linalg.solve_triangular(root, half.T, lower=True, trans=1))


def _tilted(layer: Hidden, place: Place, root: Any, target: Float[Array, "n n"]) -> Place:
    """A tilt that has gone towards its target as far as is safe, and the moments with it.

    In units of the inverse Gram matrix a law whose features were Gaussian would lose its density
    at a change of -1, and the target answers a change by as much as it pulls outwards, twice.
    """
    lower = root_of(place.gram)
    change = target - place.tilt
    whole = lower.T @ change @ lower
    left = jnp.linalg.norm(whole)
    outward = jnp.maximum(-jnp.min(jnp.linalg.eigvalsh(lower.T @ target @ lower)), 0.0)
    change = jnp.minimum(PACE / (1 + outward), BOLD / left) * change
    place = place._replace(tilt=place.tilt + change, left=left)
    if layer.exact:
        return place
    # the chains as they stand, weighed by the change, tell what it does to the moments
    features = activated(layer.functions, place.z @ root.T)
    lean = jax.nn.softmax(-energy(layer.functions, root, change, place.z)) - 1 / len(place.z)
    return place._replace(
        gram=place.gram + second(features, lean), spread=place.spread + second(place.z, lean)
    )


def _symmetric(matrix):
    return (matrix + matrix.T) / 2
