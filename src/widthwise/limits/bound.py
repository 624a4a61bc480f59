"""A bound on the log evidence through a few rows in place of all: a sum over blocks of rows.

Outputs u at m inducing rows have the prior covariance K = L L^T, and B = K_nm L^-T stands for all n
rows. Of them only B^T B, B^T y, |y|^2 and what their variances exceed those of B B^T by are read.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from widthwise.limits.noise import NOISES, least_noise, negative_evidence
from widthwise.solve import Factor, Spectrum, blocks_of

BLOCK = 1024  # rows that are read at once


class Blocks(NamedTuple):
    """Rows and targets in blocks of one size; rows that fill the last one up count 0, others 1."""

    x: Float[Array, "b s d"]
    y: Float[Array, "b s k"]
    counts: Float[Array, "b s"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> "Blocks":
        size = min(BLOCK, len(x))
        filled = -len(x) % size

        def cut(array, mode):
            wide = np.pad(array, [(0, filled)] + [(0, 0)] * (array.ndim - 1), mode=mode)
            return jnp.asarray(wide.reshape(-1, size, *array.shape[1:]))

        # filled with a real row, so that no rule meets 0 / 0
        return cls(cut(x, "edge"), cut(y, "edge"), cut(np.ones(len(x)), "constant"))


class Summary(NamedTuple):
    """All that the bound reads of the rows: B^T B, B^T y, |y|^2, and the sum of k_nn - |B_n|^2."""

    square: Any
    fit: Any
    size: Any
    spare: Any

    @classmethod
    def of(cls, along: Any, variances: Any, y: Any) -> "Summary":
        """Of rows whose B^T is `along` (m, s)."""
        spare = variances.sum() - (along**2).sum()
        return cls(along @ along.T, along @ y, (y**2).sum(), spare)

    def add(self, other: "Summary") -> "Summary":
        return Summary(*(one + more for one, more in zip(self, other, strict=True)))


Behind = Callable[[Float[Array, "s d"]], tuple[Float[Array, "s m"], Float[Array, " s"]]]


def summarised(behind: Behind, lower: Float[Array, "m m"], blocks: Blocks) -> Summary:
    """The sum over blocks. Its gradient computes each block again, so that no more than one is
    held.

    Args:
        behind: from rows to the covariance of their outputs with those at the inducing rows, and
            to their variances.
        lower: L.
    """

    def step(total: Summary, block):
        x, y, counts = block
        cross, variances = behind(x)
        along = jax.scipy.linalg.solve_triangular(lower, cross.T, lower=True) * counts
        own = Summary.of(along, variances * counts, y * counts[:, None])
        return total.add(own), None

    size, outputs = len(lower), blocks.y.shape[2]
    zero = Summary(jnp.zeros((size, size)), jnp.zeros((size, outputs)), 0.0, 0.0)
    return jax.lax.scan(jax.checkpoint(step), jax.tree.map(jnp.asarray, zero), blocks)[0]


def negative_bound(
    summary: Summary, y: Float[Array | np.ndarray, "n k"], noise: Any
) -> Float[Array, ""]:
    """-(log N(y; 0, B B^T + noise I) - k sum of (k_nn - |B_n|^2) / (2 noise)).

    Source: titsias2009, variational lower bound.
    """
    rows, outputs = y.shape
    within = jnp.eye(len(summary.square)) + summary.square / noise
    lower = jnp.linalg.cholesky(within)
    half = jax.scipy.linalg.solve_triangular(lower, summary.fit, lower=True)
    fit = (summary.size - jnp.sum(half**2) / noise) / noise
    determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(lower))) + rows * jnp.log(noise)
    return negative_evidence(fit, determinant, y) + outputs * summary.spare / (2 * noise)


class InducingFactor(NamedTuple):
    """Stands for the factor of all rows' covariance, of new rows that are given by their
    covariance with the inducing ones: `prior` is the factor of the latter's."""

    prior: Factor
    turn: Float[np.ndarray, "m m"]

    @property
    def jitter(self) -> float:
        return self.prior.jitter

    def half(self, right: Float[np.ndarray, "m q"]) -> Float[np.ndarray, "m q"]:
        """Columns whose products are what the data take from the covariance of new rows."""
        return self.turn.T @ self.prior.half(right)


class Bound(NamedTuple):
    """A summary in the eigenbasis of B^T B: the bound at every noise, and the posterior."""

    spectrum: Spectrum
    summary: Summary
    y: Float[np.ndarray, "n k"]

    @classmethod
    def of(cls, summary: Summary, y: Float[np.ndarray, "n k"]) -> "Bound":
        return cls(Spectrum.of(np.asarray(summary.square)), summary, y)

    def at(self, noise: float) -> float:
        """The bound on log p(y)."""
        (rows, outputs), (values, vectors) = self.y.shape, self.spectrum
        power = np.sum((vectors.T @ self.summary.fit) ** 2, axis=1)
        fit = (self.summary.size - np.sum(power / (values + noise))) / noise
        determinant = float(np.sum(np.log1p(values / noise))) + rows * math.log(noise)
        over = outputs * self.summary.spare / (2 * noise)
        return -float(negative_evidence(fit, determinant, self.y) + over)

    def best_noise(self, scale: float) -> float:
        """The noise variance of the largest bound; `scale` is the mean variance of the outputs."""
        return least_noise(lambda noise: -self.at(noise), scale, self.y, NOISES[0])[0]

    def posterior(
        self, prior: Factor, noise: float
    ) -> tuple[InducingFactor, Float[np.ndarray, "m k"]]:
        """What new rows are predicted by: a factor and the weights of the mean, both for their
        covariance with the inducing rows, whose own has the factor `prior`.

        Source: titsias2009, best variational distribution.
        """
        values, vectors = self.spectrum
        inverse = 1 / (values + noise)
        mean = self.spectrum.apply(inverse, np.asarray(self.summary.fit))
        weights = scipy.linalg.solve_triangular(prior.lower, mean, lower=True, trans=1)
        return InducingFactor(prior, vectors * np.sqrt(values * inverse)), weights


def summary_by(
    entries: Callable[[slice], tuple[Float[np.ndarray, "s m"], Float[np.ndarray, " s"]]],
    prior: Factor,
    y: Float[np.ndarray, "n k"],
) -> Summary:
    """`summarised` of a kernel that is computed block by block, in NumPy."""
    parts = []
    for block in blocks_of(len(y), BLOCK):
        cross, variances = entries(block)
        parts.append(Summary.of(prior.half(cross.T), variances, y[block]))
    total = parts[0]
    for part in parts[1:]:
        total = total.add(part)
    return total
