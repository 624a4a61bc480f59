"""A preconditioner from a few of a matrix's columns."""

import numpy as np
import scipy.linalg
from jaxtyping import Float


class Nystrom:
    """P^-1 with P = U (Lambda + noise) U^T + (lambda + noise) (I - U U^T).

    U Lambda U^T is what m columns of a matrix K tell of it, lambda the least of the eigenvalues
    that are kept. What the columns do not tell is scaled as the least that they do, which
    (K_nm K_mm^-1 K_mn + noise I)^-1 does not.

    >>> some = np.array([[2.0], [0.0]])  # a column of a matrix diag(2, 0)
    >>> Nystrom(some, some[:1], noise=1.0).solve(np.ones((2, 1))).round(12).tolist()
    [[0.333333333333], [0.333333333333]]

    Args:
        columns: K_nm.
        among: K_mm, the rows of those columns.
        noise: what is added to K's diagonal.

    Source: frangella2023, section 5.
    """

    def __init__(
        self, columns: Float[np.ndarray, "n m"], among: Float[np.ndarray, "m m"], noise: float
    ):
        jitter = 1e-10 * float(np.mean(np.diagonal(among)))
        values, vectors = scipy.linalg.eigh(among, check_finite=False)
        known = values > jitter
        root = columns @ (vectors[:, known] / np.sqrt(values[known]))
        values, vectors = scipy.linalg.eigh(root.T @ root, check_finite=False)
        # the lower half is the less accurate
        kept = slice(len(values) // 2, None)
        self._values = values[kept] + noise
        self._vectors = root @ (vectors[:, kept] / np.sqrt(values[kept]))

    def solve(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """P^-1 right."""
        inside = self._vectors.T @ right
        least = self._values[0]
        share = least / self._values - 1
        return (right + self._vectors @ (share[:, None] * inside)) / least
