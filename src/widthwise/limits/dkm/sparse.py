"""The objective of a deep kernel machine through inducing rows: all others follow from these."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.limits.bound import Blocks, Summary, negative_bound, summarised
from widthwise.limits.dkm.extend import Known, outputs_beside
from widthwise.limits.dkm.full import Fixed, Objective, Passage, divergences, passage
from widthwise.limits.dkm.layers import GramLayer
from widthwise.solve import float64


class Rows(NamedTuple):
    """The inducing rows and, in blocks, all rows with their targets."""

    inducing: Float[Array, "m d"]
    blocks: Blocks


def rows_of(
    inducing: Float[np.ndarray, "m d"], x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]
) -> Rows:
    with float64():
        return Rows(jnp.asarray(inducing), Blocks.of(x, y))


@functools.partial(jax.jit, static_argnums=0)
def summary_of(
    layers: tuple[GramLayer, ...], known: Known, lower: Float[Array, "m m"], blocks: Blocks
) -> Summary:
    """What all rows tell through the inducing ones, whose outputs' covariance has the factor
    `lower`."""

    def behind(x):
        found = outputs_beside(layers, known, x)
        return found.xy, found.xx

    return summarised(behind, lower, blocks)


def loss(
    layers: tuple[GramLayer, ...], fixed: Fixed, rows: Rows, free: Any
) -> tuple[Float[Array, ""], Passage]:
    """-(a bound on log p(y | G^L) - sum of nu KL) with the Gram matrices of inducing rows only;
    `fixed` is of these, but its targets are those of all rows.

    Source: yang2023theory; titsias2009, variational lower bound.
    """
    found = passage(layers, fixed, free)
    known = Known(fixed.own, rows.inducing, found.roots, found.whitened)
    jitter = fixed.jitter * jnp.mean(jnp.diagonal(found.output))
    lower = jnp.linalg.cholesky(found.output + jitter * jnp.eye(len(found.output)))
    bound = negative_bound(summary_of(layers, known, lower, rows.blocks), fixed.y, fixed.noise)
    return bound + divergences(free, fixed.nus), found


evaluated = jax.jit(jax.value_and_grad(loss, argnums=3, has_aux=True), static_argnums=0)


def through(rows: Rows) -> Objective:
    """The objective with these inducing rows, for `best_grams`."""
    return Objective(
        lambda layers, fixed, free: evaluated(layers, fixed, rows, free),
        f"give Inducing fewer points than {len(rows.inducing)}",
    )
