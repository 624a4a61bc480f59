"""Outputs through inducing variables: what the data say of them, and what that costs.

Outputs u_1 .. u_k at m inducing variables with prior N(0, K), K = R R^T, have the posteriors
N(R mean_j, R S S^T R^T): `mean` (m, k) and the lower triangle `root` S (m, m) are free.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from widthwise.limits.dkm.blocks import Blocks, root_of, whitened
from widthwise.limits.dkm.stochastic import exact_divergence

TRAINING, PREDICTING = 32, 1000  # draws of the outputs, for each row


class Outputs(NamedTuple):
    """Marginal posterior of each row's outputs: independent of each other, of one variance."""

    mean: Float[Array, "b k"]
    variance: Float[Array, " b"]


def outputs_of(
    blocks: Blocks, mean: Float[Array, "m k"], root: Float[Array, "m m"]
) -> tuple[Outputs, Float[Array, ""], Float[Array, "b b"] | None]:
    """Outputs at the rows of the readout's prior covariances, the smallest variance that they have
    given the inducing variables over the largest of the prior, and their covariance among rows,
    where the blocks have it.

    Source: yang2023theory, inducing points.
    """
    side = whitened(root_of(blocks.ii), blocks.ti.xy)
    turned = side @ root.astype(side.dtype)
    spare = blocks.ti.xx - jnp.sum(side**2, axis=1)
    variance = jnp.maximum(spare, 0.0) + jnp.sum(turned**2, axis=1)
    least = jnp.min(spare) / jnp.max(blocks.ti.xx)
    among = None
    if blocks.among is not None:
        among = blocks.among.xy - side @ side.T + turned @ turned.T
    return Outputs(side @ mean.astype(side.dtype), variance), least, among


def output_divergence(mean: Float[Array, "m k"], root: Float[Array, "m m"]) -> Float[Array, ""]:
    """sum over outputs of KL(N(R mean_j, R S S^T R^T) | N(0, R R^T))."""
    return jnp.sum(mean**2) / 2 + mean.shape[1] * exact_divergence(root)


def expected_gaussian(found: Outputs, y: Float[Array, "b k"], noise: float) -> Float[Array, " b"]:
    """E log N(y | f, noise) of each row, summed over outputs."""
    count = y.shape[1]
    missed = jnp.sum((y - found.mean) ** 2, axis=1) + count * found.variance
    return -(missed / noise + count * math.log(2 * math.pi * noise)) / 2


def draws_of(
    key: PRNGKeyArray, count: int, shape: tuple[int, ...], dtype: Any
) -> Float[Array, "s b k"]:
    """Standard normal numbers for `count` draws of outputs (b, k), each beside its negative."""
    half = jax.random.normal(key, (count // 2, *shape), dtype)
    return jnp.concatenate([half, -half])


def expected_categorical(
    found: Outputs, labels: Int[Array, " b"], draws: Float[Array, "s b k"]
) -> Float[Array, " b"]:
    """E log softmax(f)[label] of each row: the label's output is known in the mean, the log of the
    sum of exponentials is a mean over draws of f = mean + std * draw.

    Its expectation over the draws is exact, and so is that of its gradient.
    """
    f = found.mean + jnp.sqrt(found.variance)[:, None] * draws
    normal = jnp.mean(jax.nn.logsumexp(f, axis=-1), axis=0)
    return jnp.take_along_axis(found.mean, labels[:, None], axis=1)[:, 0] - normal


def mean_probabilities(found: Outputs, draws: Float[Array, "s ... k"]) -> Float[Array, "b k"]:
    """E softmax(f) of each row, a mean over draws."""
    f = found.mean + jnp.sqrt(found.variance)[:, None] * draws
    return jnp.mean(jax.nn.softmax(f, axis=-1), axis=0)
