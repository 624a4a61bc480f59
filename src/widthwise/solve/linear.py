"""Factorisation of kernel matrices, with the smallest jitter that works, reported."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

JITTERS = (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6)  # relative to the mean of the diagonal


class NotSolvable(ValueError):
    """A kernel matrix that no small jitter makes positive definite."""


class Factor(NamedTuple):
    """Lower Cholesky factor of matrix + jitter * mean(diagonal) * I."""

    lower: Float[np.ndarray, "n n"]
    jitter: float

    def solve(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        return scipy.linalg.cho_solve((self.lower, True), right)

    def half(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """L^-1 right, whose columns' squared norms are right^T K^-1 right."""
        return scipy.linalg.solve_triangular(self.lower, right, lower=True)

    def log_determinant(self) -> float:
        return 2.0 * float(np.log(np.diagonal(self.lower)).sum())


def cholesky(matrix: Float[np.ndarray, "n n"]) -> Factor:
    """Factors a symmetric positive semidefinite matrix.

    >>> cholesky(np.eye(2)).jitter
    0.0

    Raises NotSolvable if a jitter of 1e-6 of the mean diagonal is not enough.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise NotSolvable("The kernel matrix has entries that are not finite: rescale the inputs.")
    scale = float(np.mean(np.diagonal(matrix)))
    for jitter in JITTERS:
        try:
            lower = scipy.linalg.cholesky(
                matrix + jitter * scale * np.eye(len(matrix)), lower=True, check_finite=False
            )
        except np.linalg.LinAlgError:
            continue
        return Factor(lower, jitter)
    raise NotSolvable(
        f"The kernel matrix of {len(matrix)} rows is not positive definite, even with a jitter of "
        f"{JITTERS[-1]:g} of its diagonal: add noise or ridge, or remove duplicate rows."
    )
