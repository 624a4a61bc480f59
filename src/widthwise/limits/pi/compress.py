"""Bounded memory: a layer's rows projected onto some of them, in the geometry of V00.

F = sum_m c_m V00(B_m, .) lies in the reproducing-kernel space of V00. Of all operators on the kept
points S, the nearest has coefficients K_SS^-1 K_S: c. Which points are kept is chosen by pivoted
Cholesky within random groups, weighted by the rows' coefficients: as good as pivots over all rows
where it was measured, at a cost that is linear in the rows. The projection is over all rows.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int

from widthwise.limits.pi import rows
from widthwise.limits.pi.pairs import AbstractPairs
from widthwise.limits.pi.rows import Operator

GROWTH = 3  # times the rows kept, at which they are projected: a projection costs less than that
GROUP = 1024  # rows among which pivots are chosen
TILE = 2048  # rows and columns of a kernel tile
PROBES = 512  # rows at which the error is measured
EVEN = 0.05  # of the mean squared coefficient, added so that small coefficients count too
JITTER = {"float32": 1e-4, "float64": 1e-10}  # on a diagonal of at most 1/2 |B|^2: rounding


class Compression(NamedTuple):
    """What one projection did: rows before and after, and the relative error of the operator."""

    before: int
    after: int
    error: float


def compress(
    pairs: AbstractPairs, operator: Operator, keep: int, seed: Any, speed: float = 0.0
) -> tuple[Operator, Compression]:
    """The nearest operator on at most `keep` rows.

    Args:
        pairs: of the nonlinearity before the layer.
        operator: its rows.
        keep: how many are kept; with momentum each kept point takes two, one for its velocity.
        seed: of the groups and of the rows where the error is measured.
        speed: what a velocity will still add to a weight; 0 without momentum.
    """
    rng = np.random.default_rng(seed)
    a, b, w, v = rows.gathered(operator)
    storage, a, b = str(a.dtype), *(np.asarray(x, w.dtype) for x in (a, b))
    c = w[:, None] * a
    if speed:
        c = np.concatenate([c, (speed * v)[:, None] * a], axis=1)
    points = keep // 2 if speed else keep
    chosen = select(pairs, b, np.sum(c * c, axis=1), points, rng)
    kept, size = project(pairs, b, c, chosen)
    lost = lost_norm2(pairs, b, c, chosen, kept, rng)
    error = float(np.sqrt(lost / max(lost + size, 1e-300)))
    found, k = b[chosen], a.shape[1]
    one, none = np.ones(len(chosen), w.dtype), np.zeros(len(chosen), w.dtype)
    if speed:
        kept = np.concatenate([kept[:, :k], kept[:, k:] / speed])
        found, one, none = (
            np.concatenate(pair) for pair in ((found, found), (one, none), (none, one))
        )
    packed = rows.operator_of(kept, found, one, none, storage)
    return packed, Compression(len(b), len(found), error)


def select(
    pairs: AbstractPairs,
    points: Float[np.ndarray, "n r"],
    size: Float[np.ndarray, " n"],
    keep: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " m"]:
    """The rows to keep, ascending: large coefficients, far from each other."""
    count = len(points)
    if keep >= count:
        return np.arange(count)
    score = np.sqrt(size + EVEN * size.mean())
    groups = np.array_split(rng.permutation(count), -(-count // GROUP))
    ends = np.round(keep * np.cumsum([0, *map(len, groups)]) / count).astype(int)
    chosen = []
    for group, wanted in zip(groups, np.diff(ends), strict=True):
        kernel = np.asarray(_tile(pairs, points[group], points[group]), dtype=np.float64)
        weighted = score[group, None] * kernel * score[group]
        (pivoted,) = scipy.linalg.get_lapack_funcs(("pstrf",), (weighted,))
        order = pivoted(weighted, tol=0.0)[1]
        chosen.append(group[order[:wanted] - 1])
    return np.sort(np.concatenate(chosen))


def project(
    pairs: AbstractPairs, points, coefficients, chosen
) -> tuple[Float[np.ndarray, "m k"], float]:
    """K_SS^-1 K_S: c, and the squared norm of the operator that it makes."""
    kept = np.zeros(len(points), bool)
    kept[chosen] = True
    at, others = points[chosen], points[~kept]
    # rows that are kept stand for themselves: only the others are projected
    target = kernel_product(pairs, at, others, coefficients[~kept])
    gram = np.empty((len(at), len(at)), points.dtype)
    for i in range(0, len(at), TILE):
        for j in range(0, i + TILE, TILE):
            gram[i : i + TILE, j : j + TILE] = _tile(pairs, at[i : i + TILE], at[j : j + TILE])
    jitter = JITTER[str(points.dtype)]
    level = float(np.mean(np.diagonal(gram)))
    diagonal = np.einsum("ii->i", gram)
    (factorise,) = scipy.linalg.get_lapack_funcs(("potrf",), (gram,))
    while True:
        diagonal += jitter * level
        factor, failed = factorise(gram, lower=True)
        if not failed:
            break
        jitter *= 10.0
    solved = scipy.linalg.cho_solve((factor, True), target, overwrite_b=True, check_finite=False)
    found = coefficients[chosen] + solved
    (triangle,) = scipy.linalg.get_blas_funcs(("trmm",), (factor,))
    half = triangle(1.0, factor, found, lower=True, trans_a=True)
    return found, float(np.sum(half.astype(np.float64) ** 2))


def lost_norm2(pairs, points, coefficients, chosen, kept, rng) -> float:
    """The squared norm of what was lost, measured at sampled rows.

    It is tr(E^T K E) = sum_i E_i . (K E)_i with E what the coefficients lost. K E vanishes at the
    points that are kept; the others are drawn in proportion to |E_i|.
    """
    lost = coefficients.copy()
    lost[chosen] -= kept
    size = np.sqrt(np.sum(lost.astype(np.float64) ** 2, axis=1))
    size[chosen] = 0.0
    if not size.sum() > 0:
        return 0.0
    share = size / size.sum()
    drawn = rng.choice(len(points), min(PROBES, len(points)), p=share)
    product = kernel_product(pairs, points[drawn], points, lost)
    found = np.mean(np.sum(lost[drawn] * product, axis=1) / share[drawn])
    return max(float(found), 0.0)


def kernel_product(pairs: AbstractPairs, at, points, coefficients) -> Float[np.ndarray, "m k"]:
    """V00(at, points) @ coefficients, tile by tile."""
    found = np.empty((len(at), coefficients.shape[1]), coefficients.dtype)
    for i in range(0, len(at), TILE):
        total = 0.0
        for j in range(0, len(points), TILE):
            own = slice(j, j + TILE)
            total = total + _product(pairs, at[i : i + TILE], points[own], coefficients[own])
        found[i : i + TILE] = total
    return found


@functools.partial(jax.jit, static_argnums=0)
def _tile(pairs, at, points) -> Float[Array, "n m"]:
    sizes = [jnp.sum(x**2, axis=1) for x in (points, at)]
    return pairs.value(at @ points.T, *sizes)


@functools.partial(jax.jit, static_argnums=0)
def _product(pairs, at, points, coefficients):
    return _tile(pairs, at, points) @ coefficients
