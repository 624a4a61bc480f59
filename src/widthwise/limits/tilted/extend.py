"""New rows under laws that the training rows have settled: what they read of every unit."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.limits.dkm.layers import GramLayer, covariance
from widthwise.limits.tilted.law import Functions, activated
from widthwise.limits.tilted.saddle import Hidden, root_of
from widthwise.limits.tilted.settle import Law
from widthwise.network.moments import Moments, exact_diagonal

NODES = 32  # of the integrals over what the training rows leave open of a new row
TERMS = 12  # of the series in the correlation of what they leave open of two
PART = 256  # points of a law at once
SPARE = 1e-9  # of a row's variance: less is rounding
NEGATIVE = 1e-6  # of the largest variance: below zero by less is rounding


class Known(NamedTuple):
    """What new rows are related to: the first layer with its weights, training rows (n, d), the
    laws of the hidden layers, and the variances of weights and biases of later layers."""

    own: Any
    x: Any
    laws: tuple[Law, ...]
    affine: tuple[tuple[float, float], ...]


class Rows(NamedTuple):
    """New rows beside the training rows: covariances with them, variances, and covariances among
    themselves, None where nobody asks."""

    cross: Any
    variances: Any
    among: Any


class Extension(NamedTuple):
    """The readout's covariances, the features' of every hidden layer, and the smallest variance
    that the training rows leave open in each, over the largest."""

    output: Rows
    features: tuple[Any, ...]
    least: tuple[Any, ...]


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def extend(
    first: GramLayer, hidden: tuple[Hidden, ...], known: Known, x: Float[Array, "m d"], among: bool
) -> Extension:
    """Carries new rows through all layers.

    Given f of the training rows a new row's is Gaussian, as under the prior, since the tilt does
    not know of it: its features are averaged over that, and over the law.
    """
    crossed = covariance(first, known.own, Moments.of(x, known.x))
    inner = covariance(first, known.own, Moments.of(x)).xy if among else None
    rows, features, least = Rows(crossed.xy, crossed.xx, inner), [], []
    for number, layer in enumerate(hidden):
        law, (weight, bias) = known.laws[number], known.affine[number]
        if law.z is None:
            rows = _under_prior(layer.functions, law, rows)
            least.append(jnp.zeros(()))
        else:
            rows, spare = _under_law(layer.functions, law, _along(number, law, rows), rows)
            least.append(spare)
        features.append(rows.among)
        rows = Rows(*(None if part is None else weight * part + bias for part in rows))
    return Extension(rows, tuple(features), tuple(least))


def _along(number: int, law: Law, rows: Rows) -> Float[Array, "m r"]:
    """K_new R^-T: the first layer's root has orthogonal columns, fewer than rows, and those of
    others are triangular."""
    if number == 0:
        return rows.cross @ law.root / jnp.sum(law.root**2, axis=0)
    return jax.scipy.linalg.solve_triangular(law.root, rows.cross.T, lower=True).T


def _under_prior(functions: Functions, law: Law, rows: Rows) -> Rows:
    """Where nu is infinite: the functions' own rules."""

    def through(moments: Any) -> Any:
        for function in functions:
            moments = function.kernel(None, moments)
        return moments

    none = jnp.zeros_like(rows.variances)
    others = jnp.diagonal(law.covariance)
    crossed = through(
        Moments(rows.variances, rows.cross, others, jnp.zeros_like(rows.cross), none, 0 * others)
    )
    among = rows.among
    if among is not None:
        among = through(Moments(rows.variances, among, None, jnp.zeros_like(among), none, None)).xy
    return Rows(crossed.xy, crossed.xx, among)


def _under_law(
    functions: Functions, law: Law, along: Float[Array, "m r"], rows: Rows
) -> tuple[Rows, Float[Array, ""]]:
    """E[phi(f_new) phi(f)^T] and E[phi(f_new) phi(f_new)^T] over a tilted law.

    f_new = m + s xi, xi ~ N(0, 1), where m is linear in f: c_k = E[phi(m + s xi) He_k(xi)] are the
    coefficients of a Hermite series, by quadrature, and two rows whose xi have correlation rho
    have E[phi phi'] = sum of c_k c_k' rho^k; what lies beyond its last term is zero off the
    diagonal.
    """
    spare = rows.variances - jnp.sum(along**2, axis=1)
    deviation = jnp.sqrt(jnp.where(spare > SPARE * rows.variances, spare, 0.0))
    terms, count = (1 if rows.among is None else TERMS), len(spare)
    nodes, basis = _hermite(terms)

    def spanned(mean):
        values = activated(functions, mean)
        rest = jnp.zeros((terms - 1, *values.shape))
        return jnp.concatenate([values[None], rest]), values**2

    def opened(mean):
        values = activated(functions, mean[..., None] + deviation[:, None] * nodes)
        return jnp.einsum("smj,kj->ksm", values, basis), values**2 @ basis[0]

    def part(sums, at):
        z, weights = at
        own, squares = jax.lax.cond(jnp.any(deviation > 0), opened, spanned, z @ along.T)
        trained = weights[:, None] * activated(functions, z @ law.root.T)
        weighed = own if terms > 1 else own[:0]
        found = own[0].T @ trained, weights @ squares, _pairs(weighed, weights)
        return jax.tree.map(jnp.add, sums, found), None

    sums = jnp.zeros_like(rows.cross), jnp.zeros(count), jnp.zeros((terms, count, count))
    sums = (*sums[:2], sums[2] if terms > 1 else sums[2][:0])
    cross, variances, pairs = jax.lax.scan(part, sums, _parts(law))[0]
    # points are fewer than what the rounds have averaged: they tell only how features of new rows
    # are regressed on those of training rows, and what that leaves
    regressed = jax.scipy.linalg.cho_solve((root_of(law.drawn), True), cross.T).T
    more = regressed @ (law.gram - law.drawn)
    variances = variances + jnp.sum(more * regressed, axis=1)
    among = None
    if rows.among is not None:
        scale = jnp.where(deviation > 0, deviation, jnp.inf)
        rho = (rows.among - along @ along.T) / (scale[:, None] * scale)
        powers = jnp.clip(rho, -1.0, 1.0) ** jnp.arange(terms)[:, None, None]
        among = jnp.sum(pairs * powers, axis=0) + more @ regressed.T
        among = exact_diagonal(among, variances, None)
    return Rows(cross + more, variances, among), jnp.min(spare) / jnp.max(rows.variances)


def _pairs(own: Float[Array, "k s m"], weights: Float[Array, " s"]) -> Float[Array, "k m m"]:
    return jax.vmap(lambda rows: rows.T @ (weights[:, None] * rows))(own)


def _parts(law: Law) -> tuple[Float[Array, "b p r"], Float[Array, "b p"]]:
    """The points of a law in parts, filled up with points that weigh nothing."""
    more = -len(law.z) % PART
    z = jnp.pad(law.z, ((0, more), (0, 0))).reshape(-1, PART, law.z.shape[1])
    return z, jnp.pad(law.weights, (0, more)).reshape(-1, PART)


def _hermite(terms: int) -> tuple[Float[np.ndarray, " j"], Float[np.ndarray, "k j"]]:
    """Nodes, and their weights in the integrals against each orthonormal Hermite polynomial."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    values = np.polynomial.hermite_e.hermevander(nodes, terms - 1).T
    sizes = np.array([math.sqrt(math.factorial(k)) for k in range(terms)])
    return nodes, values / sizes[:, None] * weights / weights.sum()


def check_variances(layers: tuple[GramLayer, ...], found: Extension) -> None:
    """Raises ValueError, naming the layer, where new rows have a variance below zero."""
    for number, least in enumerate(found.least):
        if not float(least) > -NEGATIVE:
            raise ValueError(
                f"The variance of a new row is {float(least):.1g} of the largest in hidden layer "
                f"{number + 1}, {layers[number].layers[-1]!r}, whose Gram matrix is nearly "
                "singular: give a larger nu or noise, or remove rows that nearly coincide."
            )
