"""What inducing variables know of rows of data, and how layers carry it.

Inducing variables u_1 .. u_m are Gaussian variables with as many independent copies as the features
have, correlated with the features of every row at every position: values at inducing inputs, or
sums of such values times fresh weights. All that is kept are three covariances: of inducing
variables with each other, of rows with them, and of each row at each position with itself.
Covariances between positions are never formed.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.conv import reads
from widthwise.network.dense import Affine
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import Moments, exact_diagonal
from widthwise.network.taps import Taps, along

JITTER = 1e-6  # added to covariances of inducing variables, relative to their mean diagonal


class Blocks(eqx.Module):
    """Second moments a feature, of m inducing variables and n = b * positions rows.

    `ii` (m, m) is of the inducing variables, `ti` (n, m) of rows against them with the rows' own
    variances in `ti.xx`; `among` (n, n) is of rows against each other where it is asked for, which
    vectors can be. `shape` is the grid of positions, () for vectors.
    """

    ii: Moments
    ti: Moments
    among: Moments | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def each(self, function: Any) -> "Blocks":
        """A map of moments applied to all three."""
        among = None if self.among is None else function(self.among)
        return Blocks(function(self.ii), function(self.ti), among, self.shape)

    def on_grid(self, leaf: Float[Array, "n ..."]) -> Float[Array, "b ..."]:
        """Rows and positions apart: (n, ...) as (b, extents ..., ...)."""
        return leaf.reshape(-1, *self.shape, *leaf.shape[1:])


def gaussian(xx: Any, xy: Any, yy: Any) -> Moments:
    """Moments of features with mean zero."""
    y = None if yy is None else jnp.zeros_like(yy)
    return Moments(xx, xy, yy, jnp.zeros_like(xy), jnp.zeros_like(xx), y)


def of_inducing(gram: Float[Array, "m m"], diagonal: Float[Array, " m"]) -> Moments:
    """Of inducing variables with each other, with an exact diagonal."""
    return gaussian(diagonal, exact_diagonal(gram, diagonal, None), None)


def read_by(taps: tuple[Taps, ...], x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """What a filter reads of each row at each position; rows of vectors are read as they are."""
    return jax.vmap(lambda row: reads(row, taps))(x) if taps else x


def inputs(own: Affine, x: Float[Array, "... f"]) -> Float[Array, "... g"]:
    """Features whose products are the prior covariance of a layer of weights on data."""
    weight, bias = own.weight.variance, own.bias.variance  # type: ignore[attr-defined]
    scaled = jnp.sqrt(weight / x.shape[-1]) * x
    if isinstance(bias, float) and bias == 0:
        return scaled
    constant = jnp.broadcast_to(jnp.sqrt(jnp.asarray(bias, x.dtype)), (*x.shape[:-1], 1))
    return jnp.concatenate([scaled, constant], axis=-1)


def begun(
    own: Affine, z: Float[Array, "m f"], read: Float[Array, "b ..."], metric: Any, whole: bool
) -> Blocks:
    """The prior covariances of the first layer of weights, whose inducing variables are its values
    at z; with a `metric` T (g, r), what they become under the Gram matrix T T^T of its weights,
    which needs no approximation. `whole` asks for covariances among rows."""
    shape, rows = read.shape[1:-1], read.reshape(-1, read.shape[-1])
    one, other = inputs(own, z), inputs(own, rows)
    if metric is not None:
        one, other = one @ metric, other @ metric.astype(other.dtype)
    xx, yy = jnp.sum(other**2, axis=1), jnp.sum(one**2, axis=1)
    ii = of_inducing(one @ one.T, yy)
    ti = gaussian(xx, other @ one.T.astype(other.dtype), yy.astype(other.dtype))
    return Blocks(ii, ti, of_inducing(other @ other.T, xx) if whole else None, shape)


def affine(own: Affine, blocks: Blocks, layer: AbstractLayer) -> Blocks:
    """Through fresh weights at each position; inducing variables go through the same weights."""
    return blocks.each(lambda moments: layer.kernel(own, moments))  # type: ignore[arg-type]


def mixed(
    own: Affine, taps: tuple[Taps, ...], mix: Float[Array, "k m o"], blocks: Blocks
) -> Blocks:
    """Through a filter of fresh weights W_1 .. W_k, one a tap: the new inducing variables are
    sum_k sum_j mix[k, j, o] W_k u_j, which is u_j passed through filters, and the bias.

    Each is then divided by its standard deviation, which changes nothing but the numerics.

    Source: milsom2024, inter-domain inducing patches.
    """
    count = len(mix)
    weight, bias = own.weight.variance, own.bias.variance  # type: ignore[attr-defined]
    share, dtype = weight / count, blocks.ti.xy.dtype
    ii = share * jnp.einsum("kmo,mn,knp->op", mix, blocks.ii.xy, mix) + bias
    size = jnp.sqrt(jnp.diagonal(ii))
    flat = (mix.reshape(-1, mix.shape[-1]) / size).astype(dtype)
    read = read_by(taps, blocks.on_grid(blocks.ti.xy))
    shape = read.shape[1:-1]
    cross = share * (read @ flat) + bias / size.astype(dtype)
    seen = read_by(taps, blocks.on_grid(blocks.ti.xx)[..., None])
    own_variance = (share * jnp.sum(seen, axis=-1) + bias).reshape(-1)
    ii = of_inducing(ii / size / size[:, None], jnp.ones_like(size))
    ti = gaussian(own_variance, cross.reshape(-1, len(size)), jnp.ones_like(size, dtype))
    return Blocks(ii, ti, None, shape)


def root_of(ii: Moments) -> Float[Array, "m m"]:
    """Lower R with R R^T the covariance of the inducing variables, and JITTER."""
    jitter = JITTER * jnp.mean(ii.xx)
    return jnp.linalg.cholesky(ii.xy + jitter * jnp.eye(len(ii.xx), dtype=ii.xx.dtype))


def whitened(root: Float[Array, "m m"], cross: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """cross R^-T: covariances with inducing variables that are independent of each other.

    By the inverse of the triangle, whose product with many rows is fast.
    """
    unit = jnp.eye(len(root), dtype=root.dtype)
    inverse = jax.scipy.linalg.solve_triangular(root, unit, lower=True)
    return cross @ inverse.T.astype(cross.dtype)


def learned(blocks: Blocks, spread: Float[Array, "m r"]) -> tuple[Blocks, Float[Array, ""]]:
    """From prior covariances K to the Gram matrix G = R S S^T R^T of the inducing variables, where
    K = R R^T and `spread` is S, and what follows for the rows: they are as in the prior, given the
    inducing variables. Also the smallest variance so given, over the largest in the prior.

    Source: yang2023theory, inducing points.
    """
    root = root_of(blocks.ii)
    gram = root @ spread
    diagonal = jnp.sum(gram**2, axis=1)
    side = whitened(root, blocks.ti.xy)
    turned = side @ spread.astype(side.dtype)
    spare = blocks.ti.xx - jnp.sum(side**2, axis=1)
    variances = jnp.maximum(spare, 0.0) + jnp.sum(turned**2, axis=1)
    ti = gaussian(variances, turned @ gram.T.astype(side.dtype), diagonal.astype(side.dtype))
    among = blocks.among
    if among is not None:
        left = among.xy - side @ side.T + turned @ turned.T
        among = of_inducing(left, variances)
    return Blocks(of_inducing(gram @ gram.T, diagonal), ti, among, blocks.shape), _least(
        spare, blocks
    )


def _least(spare: Float[Array, "..."], blocks: Blocks) -> Float[Array, ""]:
    return jnp.min(spare) / jnp.max(blocks.ti.xx)


def pooled(
    matrices: tuple[np.ndarray | None, ...], blocks: Blocks, vector: bool
) -> tuple[Blocks, Float[Array, ""]]:
    """Positions multiplied by a matrix along each axis, as means over windows are; `vector` leaves
    the grid, whose extents are then 1. Inducing variables stay as they are.

    Covariances between positions are those that the inducing variables explain: what is left of
    each position's variance counts as independent of all others'.

    Source: milsom2024, inter-domain inducing patches.
    """
    side = whitened(root_of(blocks.ii), blocks.ti.xy)
    spare = blocks.ti.xx - jnp.sum(side**2, axis=1)
    squares = tuple(None if matrix is None else matrix**2 for matrix in matrices)

    def moved(leaf, by=matrices):
        return along(blocks.on_grid(leaf), by, first=1)

    explained = jnp.sum(moved(side) ** 2, axis=-1)
    variances = (explained + moved(jnp.maximum(spare, 0.0), squares)).reshape(-1)
    cross, mean = moved(blocks.ti.xy), moved(blocks.ti.x).reshape(-1)
    shape = () if vector else cross.shape[1:-1]
    cross = cross.reshape(-1, cross.shape[-1])
    at = blocks.ti
    ti = Moments(variances, cross, at.yy, jnp.zeros_like(cross), mean, at.y)
    return Blocks(blocks.ii, ti, None, shape), _least(spare, blocks)


def positions(shape: tuple[int, ...]) -> int:
    """How many a grid has; a vector has one."""
    return math.prod(shape)
