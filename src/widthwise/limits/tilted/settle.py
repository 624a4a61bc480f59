"""The saddle in rounds, from the prior until it stands: by itself on grids, in the mean over chains
elsewhere."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.limits.base import EmptyCell
from widthwise.limits.tilted.ends import slowest_fall
from widthwise.limits.tilted.law import activated, grid, trajectory
from widthwise.limits.tilted.saddle import (
    Hidden,
    Place,
    Posed,
    begun,
    root_of,
    round_of,
    second,
)
from widthwise.solve import float64

CHAINS = 1024, 32  # of a law that is sampled: at least, and for each row
REPLICATES = 4  # groups of them that end on their own, whose spread is the error that is told
CHUNK = 100  # rounds between two looks
MOST = 40  # chunks until it must stand
CLOSE = 1e-9  # to its target, at which a saddle on grids stands
DRIFT = 0.3  # of what tilts lack, the part that stays over a chunk: noise leaves less
GAIN = 0.1  # of the first of the rounds that are averaged
MEAN = 400  # rounds that are averaged, with weights that grow
LAST = 1 + MEAN // CHUNK  # chunks behind those
APART = 2  # trajectories between two draws that are kept
BURN = 10  # trajectories before the first of them
POINTS = 16384  # that are kept of a sampled law, about
ENDLESS = (
    "The tilt of a hidden layer's law grows faster along some features than its prior falls, so "
    "that no law is left at infinite width: give a larger nu or noise, or a bounded function such "
    "as Tanh()."
)


class Law(NamedTuple):
    """A hidden layer's law: the Gram matrix of its features and the prior covariance; under a nu
    that is not infinite points z (s, r), their weights, the root R of f = R z, and the Gram matrix
    that the points give, which is less exact than what the rounds have averaged."""

    gram: Any
    covariance: Any
    z: Any = None
    weights: Any = None
    root: Any = None
    drawn: Any = None


class Standing(NamedTuple):
    """How the saddle was found: after so many rounds of so many chains, at rest or not."""

    rounds: int
    chains: int
    rests: bool


class Saddle(NamedTuple):
    """The tilts and laws that agree with each other, and how well.

    `left` is what tilts lack to their targets, in units of inverse Gram matrices; `errors` are
    standard errors of the Gram matrices, relative to their norms, and `fit_error` that of the
    fit to the training rows, root mean square.
    """

    tilts: tuple[Any, ...]
    laws: tuple[Law, ...]
    standing: Standing
    left: tuple[float, ...]
    errors: tuple[float, ...]
    fit_error: float


def settled(
    hidden: tuple[Hidden, ...],
    posed: Posed,
    seed: int = 0,
    advance: Callable[[float], None] = lambda share: None,
) -> Saddle:
    """The saddle of log p(y | G^L) - sum of nu KL(q^l | N(0, K(G^l-1))) over the laws q.

    All chains share their tilts until these stand but for noise; then groups of them go on, each
    with tilts of its own: first until these have parted, so that their spread tells their error,
    and then behind moments that are averaged over more and more rounds, a stochastic approximation
    of the exact saddle. `advance` is called with the share that is done, at most, since the last
    call. Raises EmptyCell where a law comes to no end.
    """
    exact = all(layer.exact or math.isinf(layer.nu) for layer in hidden)
    chains, chunk = max(CHAINS[0], CHAINS[1] * len(posed.y)), 1 / (MOST + LAST)
    keys = iter(jax.random.split(jax.random.key(seed), MOST + 5))
    with float64():
        places = _begun(hidden, posed, chains, next(keys))
        rounds, rests = 0, all(math.isinf(layer.nu) for layer in hidden)
        while not rests and rounds < MOST * CHUNK:
            places, lacks = _rounds(hidden, posed, places, jnp.ones(CHUNK), 1.0, next(keys))
            rounds += CHUNK
            advance(chunk)
            rests = _rest(lacks, exact)
        advance((MOST - rounds // CHUNK) * chunk)  # those that it did not take
        if not exact:
            places = _parted(places)
            places = _rounds(hidden, posed, places, jnp.ones(CHUNK), 1.0, next(keys))[0]
            # weights of the rounds grow in proportion: the first ones count for little
            gains = 2 / (jnp.arange(MEAN) + 2 / GAIN)
            places, lacks = _rounds(hidden, posed, places, gains, 0.0, next(keys))
            rounds += CHUNK + MEAN
            _rest(lacks, exact)
        advance(LAST * chunk)
        tilts = tuple(None if p.tilt is None else jnp.mean(p.tilt, axis=0) for p in places)
        laws = _laws(hidden, posed, places, tilts, next(keys))
        for layer, law, tilt in zip(hidden, laws, tilts, strict=True):
            if tilt is not None and not slowest_fall(layer.functions, law.root, tilt, law.z) > 0:
                raise EmptyCell(ENDLESS)
        return _found(posed, places, tilts, laws, Standing(rounds, chains, rests))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _begun(hidden: tuple[Hidden, ...], posed: Posed, chains: int, key: Array) -> tuple[Place, ...]:
    """One replicate, which has all chains."""
    return jax.tree.map(lambda leaf: leaf[None], begun(hidden, posed, chains, key))


@functools.partial(jax.jit, static_argnums=0)
def _rounds(hidden: tuple[Hidden, ...], posed: Posed, places: Any, gains, adapting, key: Array):
    """So many rounds of every replicate as there are gains, and what tilts lacked in each."""

    def alone(places, key):
        def step(places, at):
            gain, own = at
            places = round_of(hidden, posed, places, gain, adapting, own)
            return places, tuple(place.lack for place in places)

        return jax.lax.scan(step, places, (gains, jax.random.split(key, len(gains))))

    return jax.vmap(alone)(places, jax.random.split(key, len(places[0].gram)))


def _parted(places: tuple[Place, ...]) -> tuple[Place, ...]:
    """The chains of one replicate as those of several."""

    def copied(leaf):
        return jnp.repeat(leaf, REPLICATES, axis=0)

    def part(place: Place) -> Place:
        z = None if place.z is None else place.z.reshape(REPLICATES, -1, place.z.shape[-1])
        return jax.tree.map(copied, place._replace(z=None))._replace(z=z)

    return tuple(part(place) for place in places)


def _rest(lacks: tuple[Any, ...], exact: bool) -> bool:
    """Whether all tilts are where they should be, but for noise that comes and goes."""
    for lack in lacks:
        if lack is None:
            continue
        if not bool(jnp.isfinite(lack).all()):
            raise EmptyCell(ENDLESS)
        size = jnp.linalg.norm(lack[0], axis=(1, 2))
        if exact and size[-1] > CLOSE:
            return False
        if not exact and jnp.linalg.norm(jnp.mean(lack[0], axis=0)) > DRIFT * jnp.mean(size):
            return False
    return True


def _left(places: tuple[Place, ...]) -> tuple[float, ...]:
    """What the tilts of each hidden layer lack; 0 where nu is infinite."""
    lacks = [None if place.lack is None else jnp.mean(place.lack, axis=0) for place in places]
    return tuple(0.0 if lack is None else float(jnp.linalg.norm(lack, 2)) for lack in lacks)


@functools.partial(jax.jit, static_argnums=0)
def _laws(
    hidden: tuple[Hidden, ...], posed: Posed, places: Any, tilts: tuple[Any, ...], key: Array
) -> tuple[Law, ...]:
    """The laws of all layers under given tilts and the mean of the replicates' Gram matrices."""
    found, covariance, root = [], posed.first, posed.root
    keys = jax.random.split(key, len(hidden))
    for number, (layer, place, tilt) in enumerate(zip(hidden, places, tilts, strict=True)):
        gram = jnp.mean(place.gram, axis=0)
        if tilt is None:
            found.append(Law(gram, covariance))
        else:
            if layer.exact:
                z, weights = grid(layer.functions, root, tilt)
            else:
                # chains stand in units of the root that their own law has come to
                place = place._replace(z=_turned(place, root) if number else place.z)
                z = _drawn(layer, place, root, tilt, keys[number])
                weights = jnp.full(len(z), 1 / len(z))
            drawn = second(activated(layer.functions, z @ root.T), weights)
            found.append(Law(gram, covariance, z, weights, root, drawn))
        weight, bias = posed.affine[number]
        covariance = weight * gram + bias
        root = root_of(covariance)
    return tuple(found)


def _turned(place: Place, root: Float[Array, "n n"]) -> Float[Array, "g s n"]:
    """The chains of every replicate in units of this root."""
    f = jnp.einsum("gsi,gji->gsj", place.z, place.root)
    columns = f.reshape(-1, f.shape[-1]).T
    return jax.scipy.linalg.solve_triangular(root, columns, lower=True).T.reshape(f.shape)


def _drawn(layer: Hidden, place: Place, root, tilt, key) -> Float[Array, "s r"]:
    """Draws of all chains."""
    start = place.z.reshape(-1, place.z.shape[-1])
    leap, shape = jnp.min(place.leap), root_of(start.T @ start / len(start))

    def onward(z, key):
        return trajectory(layer.functions, root, tilt, z, shape, leap, key)[0], None

    def kept(z, key):
        z = jax.lax.scan(onward, z, jax.random.split(key, APART))[0]
        return z, z

    burn, keep = jax.random.split(key)
    start = jax.lax.scan(onward, start, jax.random.split(burn, BURN))[0]
    times = math.ceil(POINTS / len(start))
    found = jax.lax.scan(kept, start, jax.random.split(keep, times))[1]
    return found.reshape(-1, found.shape[-1])


def _found(
    posed: Posed,
    places: tuple[Place, ...],
    tilts: tuple[Any, ...],
    laws: tuple[Law, ...],
    standing: Standing,
) -> Saddle:
    """The saddle, with the errors that the replicates tell."""
    errors = [
        math.sqrt(_error(place.gram)) / float(jnp.linalg.norm(law.gram))
        for place, law in zip(places, laws, strict=True)
    ]
    weight, bias = posed.affine[-1]
    noisy = weight * places[-1].gram + bias + posed.noise * jnp.eye(len(posed.y))
    fits = posed.noise * jnp.linalg.solve(noisy, jnp.asarray(posed.y))
    tilts, laws = jax.tree.map(np.asarray, (tilts, laws))
    return Saddle(
        tilts, laws, standing, _left(places), tuple(errors),
        math.sqrt(_error(fits) / posed.y.size),
    )  # fmt: skip


def _error(replicates: Array) -> float:
    """The squared standard error of a mean over replicates, summed over entries; 0 of one."""
    if len(replicates) == 1:
        return 0.0
    return float(jnp.sum(jnp.var(replicates, axis=0, ddof=1))) / len(replicates)
