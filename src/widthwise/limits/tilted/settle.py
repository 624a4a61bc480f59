"""The saddle in rounds, from the prior until it stands: by itself on grids, in the mean over chains
elsewhere."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.limits.tilted.law import activated, grid, trajectory
from widthwise.limits.tilted.saddle import (
    Hidden,
    Place,
    Posed,
    begun,
    root_of,
    round_of,
    ruled,
    second,
)
from widthwise.solve import float64

REPLICATES = 4  # independent solutions, whose spread is the error that is told
CHAINS = 256, 8  # of a replicate: at least, and for each row
CHUNK = 50  # rounds between two looks
MOST = 40  # chunks until it must stand
CLOSE = 1e-9  # to its target, at which a saddle on grids stands
GAIN = 0.3  # of the newest moments, until then
MEAN = 100  # rounds from there on, whose moments are averaged with weights that grow
APART = 2  # trajectories between two draws that are kept
BURN = 10  # trajectories before the first of them
POINTS = 16384  # that are kept of a sampled law, about


class Law(NamedTuple):
    """A hidden layer's law: points z (s, r), their weights, the root R of f = R z, the Gram matrix
    of features; of an infinite nu the prior's Gram matrix and covariance."""

    z: Any
    weights: Any
    root: Any
    covariance: Any
    gram: Any


class Saddle(NamedTuple):
    """The laws that agree with each other, and how well.

    `left` is how far tilts are from their targets, in units of inverse Gram matrices; `errors`
    are standard errors of the Gram matrices, relative to their norms, and of the fit.
    """

    tilts: tuple[Any, ...]
    laws: tuple[Law, ...]
    rounds: int
    stands: bool
    left: tuple[float, ...]
    errors: tuple[float, ...]
    fit_error: float


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _begun(hidden: tuple[Hidden, ...], posed: Posed, replicates: int, chains: int, key: Array):
    keys = jax.random.split(key, replicates)
    return jax.vmap(lambda own: begun(hidden, posed, chains, own))(keys)


@functools.partial(jax.jit, static_argnums=0)
def _rounds(hidden: tuple[Hidden, ...], posed: Posed, places, gains, adapting, key: Array):
    """So many rounds of every replicate as there are gains."""

    def alone(places, key):
        def step(places, at):
            gain, own = at
            return round_of(hidden, posed, places, gain, adapting, own), None

        keys = jax.random.split(key, len(gains))
        return jax.lax.scan(step, places, (gains, keys))[0]

    return jax.vmap(alone)(places, jax.random.split(key, len(places[0].gram)))


def settled(hidden: tuple[Hidden, ...], posed: Posed, seed: int = 0) -> Saddle:
    """The saddle of log p(y | G^L) - sum of nu KL(q^l | N(0, K(G^l-1))) over the laws q."""
    exact = all(layer.exact or math.isinf(layer.nu) for layer in hidden)
    replicates = 1 if exact else REPLICATES
    chains = max(CHAINS[0], CHAINS[1] * len(posed.y))
    keys = iter(jax.random.split(jax.random.key(seed), MOST + 4))
    with float64():
        places = _begun(hidden, posed, replicates, chains, next(keys))
        rounds, stands = 0, all(math.isinf(layer.nu) for layer in hidden)
        gains = jnp.full(CHUNK, 1.0 if exact else GAIN)
        while not stands and rounds < MOST * CHUNK:
            before = places
            places = _rounds(hidden, posed, places, gains, 1.0, next(keys))
            rounds += CHUNK
            stands = max(_left(places)) < CLOSE if exact else _same(before, places)
        if not exact:
            # weights of the rounds grow in proportion: the first ones count for little
            gains = 2 / (jnp.arange(MEAN) + 2 / GAIN)
            places = _rounds(hidden, posed, places, gains, 0.0, next(keys))
            rounds += MEAN
        tilts = tuple(None if p.tilt is None else jnp.mean(p.tilt, axis=0) for p in places)
        laws = _laws(hidden, posed, places, tilts, next(keys))
        return _found(hidden, posed, places, tilts, laws, rounds, stands)


def _left(places: tuple[Place, ...]) -> tuple[float, ...]:
    """How far the tilts of each hidden layer are from their targets; 0 where nu is infinite."""
    return tuple(0.0 if p.left is None else float(jnp.max(p.left)) for p in places)


def _same(before: tuple[Place, ...], after: tuple[Place, ...]) -> bool:
    """Whether no Gram matrix has moved by more than its chance error explains."""
    for old, new in zip(before, after, strict=True):
        moved = jnp.sum(jnp.mean(new.gram - old.gram, axis=0) ** 2)
        # of a difference of two means, each over the replicates
        chance = jnp.sum(jnp.var(old.gram, axis=0, ddof=1) + jnp.var(new.gram, axis=0, ddof=1))
        if not moved <= 2 * chance / len(new.gram):
            return False
    return True


@functools.partial(jax.jit, static_argnums=0)
def _laws(
    hidden: tuple[Hidden, ...], posed: Posed, places: Any, tilts: tuple[Any, ...], key: Array
) -> tuple[Law, ...]:
    """The laws of all layers under given tilts, from the first to the last."""
    found, covariance, root = [], posed.first, posed.root
    keys = jax.random.split(key, len(hidden))
    for number, (layer, place, tilt) in enumerate(zip(hidden, places, tilts, strict=True)):
        if number:
            weight, bias = posed.affine[number - 1]
            covariance = weight * found[-1].gram + bias
            root = root_of(covariance)
        if tilt is None:
            gram = ruled(layer.functions, covariance)
            found.append(Law(None, None, None, covariance, gram))
            continue
        if layer.exact:
            z, weights = grid(layer.functions, root, tilt)
        else:
            z = _drawn(layer, place, root, tilt, keys[number])
            weights = jnp.full(len(z), 1 / len(z))
        gram = second(activated(layer.functions, z @ root.T), weights)
        found.append(Law(z, weights, root, covariance, gram))
    return tuple(found)


def _drawn(layer: Hidden, place: Place, root, tilt, key) -> Float[Array, "s r"]:
    """Draws of all chains, those of one replicate side by side."""
    start = place.z.reshape(-1, place.z.shape[-1])
    leap, shape = jnp.min(place.leap), root_of(jnp.mean(place.spread, axis=0))

    def onward(z, key):
        return trajectory(layer.functions, root, tilt, z, shape, leap, key)[0], None

    def kept(z, key):
        z = jax.lax.scan(onward, z, jax.random.split(key, APART))[0]
        return z, z

    burn, keep = jax.random.split(key)
    start = jax.lax.scan(onward, start, jax.random.split(burn, BURN))[0]
    times = math.ceil(POINTS / len(start))
    found = jax.lax.scan(kept, start, jax.random.split(keep, times))[1]
    by_replicate = jnp.moveaxis(found.reshape(times, *place.z.shape), 0, 1)
    return by_replicate.reshape(-1, found.shape[-1])


def _found(hidden, posed, places, tilts, laws, rounds: int, stands: bool) -> Saddle:
    """The saddle, with the errors that the replicates tell."""
    errors, fits = [], []
    for layer, place, law in zip(hidden, places, laws, strict=True):
        groups = _groups(layer, law, len(place.gram))
        errors.append((_error(place.gram) + _error(groups)) ** 0.5 / float(jnp.linalg.norm(law.gram)))
    last = [place.gram, groups]
    weight, bias = posed.affine[-1]
    for grams in last:
        covariance = weight * grams + bias + posed.noise * jnp.eye(grams.shape[-1])
        fits.append(posed.noise * jnp.linalg.solve(covariance, jnp.asarray(posed.y)))
    fit = sum(_error(each) for each in fits) / posed.y.size
    return Saddle(
        tilts, jax.tree.map(np.asarray, laws), rounds, stands, _left(places), tuple(errors),
        fit**0.5,
    )  # fmt: skip


def _groups(layer: Hidden, law: Law, replicates: int) -> Float[Array, "g n n"]:
    """The Gram matrices of each replicate's own draws."""
    if law.z is None or layer.exact:
        return jnp.asarray(law.gram)[None]
    features = activated(layer.functions, law.z @ law.root.T)
    own = features.reshape(replicates, -1, features.shape[-1])
    return jnp.einsum("gsi,gsj->gij", own, own) / own.shape[1]


def _error(replicates: Float[Array, "g *n"]) -> float:
    """The squared standard error of a mean over replicates, summed over entries; 0 of one."""
    if len(replicates) == 1:
        return 0.0
    return float(jnp.sum(jnp.var(replicates, axis=0, ddof=1))) / len(replicates)
