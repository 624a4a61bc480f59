"""One round on the way to the saddle: the laws of all layers' units move on, and what they obey."""

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
    force,
    grid,
    trajectory,
)

JITTER = 1e-10  # of a prior covariance's mean diagonal, added to it
PACE = 0.2  # share of the way to its target that a law goes in a round, at most
BOLD = 0.1  # change of its exponent in a round, at most, in units of the inverse second moments
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
    """Where a hidden layer stands: its law is that of f = R z, z ~ N(0, I) tilted by Lambda.

    `root` is R, `tilt` Lambda; `z` (s, r) are chains, where the law is sampled, and `leap` their
    step; `gram` is E[phi phi^T] and `spread` E[z z^T], `pull` E[z g^T] with the gradient g in z of
    the tilt's energy; `lack` (n, n) is what the tilt lacks to its target, in units of the inverse
    Gram matrix. Only `gram` is there under an infinite nu.
    """

    gram: Any
    z: Any = None
    spread: Any = None
    pull: Any = None
    root: Any = None
    tilt: Any = None
    leap: Any = None
    lack: Any = None


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


def second(rows: Float[Array, "s n"], weights: Float[Array, " s"]) -> Float[Array, "n n"]:
    """The weighted mean of rows' outer squares."""
    return rows.T @ (weights[:, None] * rows)


def begun(hidden: tuple[Hidden, ...], posed: Posed, chains: int, key: Array) -> tuple[Place, ...]:
    """Every layer at its prior, `chains` draws of each law that is sampled."""
    places, covariance, root = [], posed.first, posed.root
    keys = jax.random.split(key, len(hidden))
    for layer, (weight, bias), own in zip(hidden, posed.affine, keys, strict=True):
        gram, rank = ruled(layer.functions, covariance), root.shape[1]
        if math.isinf(layer.nu):
            places.append(Place(gram))
        else:
            z = None if layer.exact else jax.random.normal(own, (chains, rank))
            tilt, leap = jnp.zeros_like(gram), jnp.asarray(WIDEST / 2)
            spread, pull = jnp.eye(rank), jnp.zeros((rank, rank))
            places.append(Place(gram, z, spread, pull, jnp.asarray(root), tilt, leap, tilt))
        covariance = weight * gram + bias
        root = root_of(covariance)
    return tuple(places)


def round_of(
    hidden: tuple[Hidden, ...],
    posed: Posed,
    places: tuple[Place, ...],
    gain: Any,
    adapting: Any,
    key: Array,
) -> tuple[Place, ...]:
    """Every law one trajectory on, from the first layer to the last, and then every law's exponent
    a step nearer to where those of the others want it, from the last to the first.

    That is natural-gradient ascent of log p(y | G^L) - sum of nu KL(q^l | N(0, K(G^l-1))) in all
    laws at once. `gain` is the share that new moments have in those that are kept.
    """
    found, covariances = [], [posed.first]
    keys = jax.random.split(key, len(hidden))
    for layer, place, own, (weight, bias) in zip(hidden, places, keys, posed.affine, strict=True):
        found.append(_onward(layer, place, covariances[-1], gain, adapting, own))
        covariances.append(weight * found[-1].gram + bias)
    slope = readout_slope(covariances[-1], posed)
    for number in reversed(range(len(hidden))):
        layer, place, covariance = hidden[number], found[number], covariances[number]
        slope = posed.affine[number][0] * slope  # in the Gram matrix
        if place.tilt is None:
            back = jax.vjp(functools.partial(ruled, layer.functions), covariance)[1]
            slope = _symmetric(back(slope)[0])
            continue
        target, lower = -2 / layer.nu * slope, None
        if number:
            lower = root_of(covariance)
            slope = -layer.nu / 2 * _divergence_slope(lower, place.pull)
        found[number] = _tilted(layer, place, target, lower)
    return tuple(found)


def _onward(layer: Hidden, place: Place, covariance, gain, adapting, key) -> Place:
    """A layer whose law has moved on, its moments with it."""
    if place.tilt is None:
        return Place(ruled(layer.functions, covariance))
    if layer.exact:
        z, weights = grid(layer.functions, place.root, place.tilt)
        leap = place.leap
    else:
        z, accepted = trajectory(
            layer.functions, place.root, place.tilt, place.z, root_of(place.spread), place.leap, key
        )
        weights = jnp.full(len(z), 1 / len(z))
        leap = place.leap * jnp.exp(adapting * ADAPTING * (accepted - WANTED))
        leap = jnp.minimum(leap, WIDEST)
    features, pulled = force(layer.functions, place.root, place.tilt, z)
    gram, spread = second(features, weights), second(z, weights)
    pull = z.T @ (weights[:, None] * pulled)
    return place._replace(
        gram=place.gram + gain * (gram - place.gram),
        spread=place.spread + gain * (spread - place.spread),
        pull=place.pull + gain * (pull - place.pull),
        z=None if layer.exact else z,
        leap=leap,
    )


def readout_slope(covariance: Float[Array, "n n"], posed: Posed) -> Float[Array, "n n"]:
    """The derivative of log p(y) in the covariance of the outputs."""
    lower = jnp.linalg.cholesky(covariance + posed.noise * jnp.eye(len(covariance)))
    inverse = jax.scipy.linalg.cho_solve((lower, True), jnp.eye(len(covariance)))
    weights = inverse @ posed.y
    return -(posed.y.shape[1] * inverse - weights @ weights.T) / 2


def _divergence_slope(lower: Float[Array, "n n"], pull: Float[Array, "n n"]):
    """K^-1 - K^-1 E[f f^T] K^-1, twice the derivative in K of a law's divergence from N(0, K), with
    K = L L^T and f = L z.

    By Stein's identity I - E[z z^T] is E[z g^T], which has as little noise as it has size.
    """
    half = jax.scipy.linalg.solve_triangular(lower, _symmetric(pull), lower=True, trans=1)
    return _symmetric(jax.scipy.linalg.solve_triangular(lower, half.T, lower=True, trans=1))


def _tilted(layer: Hidden, place: Place, target: Float[Array, "n n"], lower: Any) -> Place:
    """A law whose exponent has gone to its target as far as is safe.

    `target` is for the tilt, and `lower` the root of the prior covariance that the layer before
    gives by now, None where there is none before. In units of inverse second moments a Gaussian
    law would end at a change of -1, and a target answers a change by about as much as it pulls
    outwards, twice.
    """
    unit = root_of(place.gram)
    change = target - place.tilt
    lack = unit.T @ change @ unit
    outward = jnp.maximum(-jnp.min(jnp.linalg.eigvalsh(unit.T @ target @ unit)), 0.0)
    change = jnp.minimum(PACE / (1 + outward), BOLD / _size(lack)) * change
    moved = place._replace(tilt=place.tilt + change, lack=lack)
    if lower is None:
        return moved
    turned = jax.scipy.linalg.solve_triangular(lower, place.root, lower=True)
    other = turned.T @ turned - jnp.eye(len(turned))  # of precisions, in units of z
    shape = root_of(place.spread)
    other = jnp.minimum(PACE, BOLD / _size(shape.T @ other @ shape)) * other
    # in units in which the precision is I again, and the root triangular
    turn = jnp.linalg.cholesky(jnp.eye(len(other)) + other)
    wide = jax.scipy.linalg.solve_triangular(turn, place.root.T, lower=True)
    orthogonal, upper = jnp.linalg.qr(wide)
    signs = jnp.sign(jnp.diagonal(upper))
    turn = turn @ (orthogonal * signs)
    return moved._replace(
        root=upper.T * signs,
        spread=turn.T @ place.spread @ turn,
        pull=jnp.linalg.solve(turn, place.pull.T @ turn).T,
        z=None if layer.exact else place.z @ turn,
    )


def _size(matrix):
    """The largest absolute eigenvalue."""
    return jnp.max(jnp.abs(jnp.linalg.eigvalsh(matrix)))


def _symmetric(matrix):
    return (matrix + matrix.T) / 2
