"""The law of one unit: a Gaussian prior times exp(-phi(f)^T Lambda phi(f) / 2), in points."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.layer import AbstractLayer

Functions = tuple[AbstractLayer, ...]  # what stands between two layers of weights

EXACT_RANK, EXACT_ROWS = 2, 16  # up to which the law is summed over a grid
ANGLES = 96  # of the grid, about
LOW, HIGH, STRIDE = -23.0, 4.0, 0.2  # logarithms of the grid's radii; the lowest over the rank
LEAPS = 8  # of a Hamiltonian trajectory
WIDEST = math.pi / (2 * LEAPS)  # angle of a leap: a trajectory through a quarter of a turn
WANTED = 0.85  # share of trajectories that are accepted


def activated(functions: Functions, f: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
    """What the next layer of weights reads."""
    for function in functions:
        f = function.apply(None, f)
    return f


def on_grid(rank: int, rows: int) -> bool:
    """Whether a law of this rank is summed over a grid, with an error of 1e-8 or less."""
    return rank <= EXACT_RANK and rows <= EXACT_ROWS


def grid(
    functions: Functions, root: Float[Array, "n r"], tilt: Float[Array, "n n"]
) -> tuple[Float[Array, "s r"], Float[Array, " s"]]:
    """Points z, f = R z, in polar coordinates, and the weights that the tilted law gives them.

    Angles are Gauss-Legendre between those at which an entry of f is zero, where functions with a
    kink at zero have theirs; radii are geometric, where the trapezoidal rule converges
    exponentially.
    """
    rank = root.shape[1]
    directions, shares = _line() if rank == 1 else _circle(root)
    logs = jnp.arange(LOW / rank, HIGH, STRIDE)
    z = (jnp.exp(logs)[:, None, None] * directions).reshape(-1, rank)
    prior = rank * logs - jnp.exp(2 * logs) / 2
    # angles without a share, between rows that vanish together, weigh nothing
    weights = (prior[:, None] + jnp.log(shares)).reshape(-1) - energy(functions, root, tilt, z)
    return z, jax.nn.softmax(weights)


def _line() -> tuple[Float[Array, "2 1"], Float[Array, " 2"]]:
    return jnp.array([[1.0], [-1.0]]), jnp.ones(2)


def _circle(root: Float[Array, "n 2"]) -> tuple[Float[Array, "m 2"], Float[Array, " m"]]:
    """Directions and their shares of the circle."""
    zero = jnp.mod(jnp.arctan2(-root[:, 0], root[:, 1]), jnp.pi)
    edges = jnp.sort(jnp.concatenate([zero, zero + jnp.pi]))
    edges = jnp.concatenate([edges, edges[:1] + 2 * jnp.pi])
    node, share = np.polynomial.legendre.leggauss(max(8, math.ceil(ANGLES / (2 * len(root)))))
    half = (edges[1:] - edges[:-1])[:, None] / 2
    angles = ((edges[1:] + edges[:-1])[:, None] / 2 + half * node).reshape(-1)
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1), (half * share).reshape(-1)


def energy(
    functions: Functions,
    root: Float[Array, "n r"],
    tilt: Float[Array, "n n"],
    z: Float[Array, "s r"],
) -> Float[Array, " s"]:
    """phi(f)^T Lambda phi(f) / 2, by which the law differs from its prior."""
    features = activated(functions, z @ root.T)
    return jnp.sum((features @ tilt) * features, axis=1) / 2


def force(
    functions: Functions,
    root: Float[Array, "n r"],
    tilt: Float[Array, "n n"],
    z: Float[Array, "s r"],
) -> tuple[Float[Array, "s n"], Float[Array, "s r"]]:
    """phi(f), and the gradient of `energy` in z."""
    features, back = jax.vjp(functools.partial(activated, functions), z @ root.T)
    return features, back(features @ tilt)[0] @ root


def trajectory(
    functions: Functions,
    root: Float[Array, "n r"],
    tilt: Float[Array, "n n"],
    z: Float[Array, "s r"],
    shape: Float[Array, "r r"],
    leap: Any,
    key: Array,
) -> tuple[Float[Array, "s r"], Float[Array, ""]]:
    """One Hamiltonian trajectory of every chain, and the mean probability of acceptance.

    With z = S v, where S (`shape`) is a root of the covariance that z has by now, the motion under
    N(0, I) of v is a rotation with its momentum, which is followed exactly: rejected for is only
    what the law differs by from a Gaussian.
    """
    turn, kick, lot = jax.random.split(key, 3)
    # trajectories of one length could return to where they began
    angle = leap * jax.random.uniform(turn, minval=0.7, maxval=1.0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    wide = root @ shape
    rest = shape.T @ shape - jnp.eye(len(shape))

    def pulled(v):
        return force(functions, wide, tilt, v)[1] + v @ rest

    def step(state, _):
        v, p, pull = state
        p = p - angle / 2 * pull
        v, p = cosine * v + sine * p, cosine * p - sine * v
        pull = pulled(v)
        return (v, p - angle / 2 * pull, pull), None

    def total(v, p):
        differing = energy(functions, wide, tilt, v) + jnp.sum((v @ rest) * v, axis=1) / 2
        return differing + jnp.sum(v**2 + p**2, axis=1) / 2

    v = jax.scipy.linalg.solve_triangular(shape, z.T, lower=True).T
    p = jax.random.normal(kick, v.shape, v.dtype)
    (moved, momentum, _), _ = jax.lax.scan(step, (v, p, pulled(v)), length=LEAPS)
    fall = total(v, p) - total(moved, momentum)
    chance = jnp.where(jnp.isfinite(fall), jnp.exp(jnp.minimum(fall, 0.0)), 0.0)
    accepted = jax.random.uniform(lot, chance.shape) < chance
    return jnp.where(accepted[:, None], moved @ shape.T, z), jnp.mean(chance)
