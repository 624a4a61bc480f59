"""A preconditioner from a few of a matrix's columns."""

import numpy as np
import scipy.linalg
from jaxtyping import Float

from widthwise.solve.symmetric import blocks_of

INACCURATE = 10  # one of so many eigenvalues, the least ones, is not told well by few columns
DROWNED = 1e-3  # of the noise: eigenvalues below it tell nothing
ROWS = 1024  # that are turned at once


class Nystrom:
    """P^-1 with P = U (Lambda + noise) U^T + (lambda + noise) (I - U U^T).

    U Lambda U^T is what m columns of a matrix K tell of it, lambda the least of the eigenvalues
    that are kept. What the columns do not tell is scaled as the least that they do, which
    (K_nm K_mm^-1 K_mn + noise I)^-1 does not.

    >>> some = np.array([[2.0], [0.0]])  # a column of a matrix diag(2, 0)
    >>> Nystrom(some, some[:1], noise=1.0).solve(np.ones((2, 1))).round(12).tolist()
    [[0.333333333333], [0.333333333333]]

    Args:
        columns: K_nm; overwritten, for there may be no room for another.
        among: K_mm, the rows of those columns.
        noise: what is added to K's diagonal.

    Source: frangella2023, section 5.
    """

    def __init__(
        self, columns: Float[np.ndarray, "n m"], among: Float[np.ndarray, "m m"], noise: float
    ):
        values, vectors = scipy.linalg.eigh(among, check_finite=False)
        # those of K are larger, in proportion to its rows
        known = values > DROWNED * noise * len(among) / len(columns)
        known[-1] = True  # so that there is one
        root = _turned(columns, vectors[:, known] / np.sqrt(values[known]))
        values, vectors = scipy.linalg.eigh(root.T @ root, check_finite=False)
        kept = slice(len(values) // INACCURATE, None)
        self._values = values[kept] + noise
        self._vectors = _turned(root, vectors[:, kept] / np.sqrt(values[kept]))

    def solve(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """P^-1 right."""
        inside = self._vectors.T @ right
        least = self._values[0]
        share = least / self._values - 1
        return (right + self._vectors @ (share[:, None] * inside)) / least


def _turned(rows: Float[np.ndarray, "n m"], by: Float[np.ndarray, "m k"]):
    """rows @ by, in the place of the rows."""
    width = by.shape[1]
    for part in blocks_of(len(rows), ROWS):
        rows[part, :width] = rows[part] @ by
    return rows[:, :width]
