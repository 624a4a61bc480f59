"""A matrix and its factor in one square, in float32: for as many rows as fit once into memory.

The matrix stands above the diagonal, the factor on and below it, and the matrix's diagonal beside
them. The factor is that of rounded numbers; conjugate gradients, which it preconditions, see the
matrix itself, and sums in float64.
"""

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float32

from widthwise.solve.linear import NotSolvable
from widthwise.solve.symmetric import AbstractSymmetric

BLOCK = 1024  # columns factored at once
# Relative to the mean of the diagonal: float32 knows an entry to 6e-8 of it.
JITTERS = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


class PackedFactor(AbstractSymmetric):
    """The matrix, whose `product` is that of the matrix without noise, and its factor.

    >>> square = np.array([[2, 1], [1, 2]], dtype=np.float32)
    >>> packed = PackedFactor(square)
    >>> packed.factor(0.5)
    0.0
    >>> packed.product(np.eye(2)).tolist()
    [[2.0, 1.0], [1.0, 2.0]]

    Args:
        square: above the diagonal and on it the matrix; it is written over below.
    """

    edge = BLOCK

    def __init__(self, square: Float32[np.ndarray, "n n"]):
        self.size = len(square)
        self._square = square
        self.diagonal = np.diagonal(square).astype(np.float64)

    def tile(self, a, b):
        part = self._square[a, b]
        if a != b:
            return part
        upper = np.triu(part, 1)
        upper += upper.T
        np.fill_diagonal(upper, self.diagonal[a])
        return upper

    def factor(self, noise: float) -> float:
        """Factors matrix + noise I, with the smallest jitter that works, and tells which it was, as
        a part of the diagonal's mean.

        Raises NotSolvable if a thousandth is not enough.
        """
        mean = float(np.mean(self.diagonal))
        for jitter in JITTERS:
            try:
                for block in self.blocks():
                    self._column(block, noise + jitter * mean)
            except np.linalg.LinAlgError:
                continue
            return jitter
        raise NotSolvable(
            f"The kernel matrix of {self.size:,} rows is not positive definite in float32, even "
            f"with a jitter of {JITTERS[-1]:g} of its diagonal: add noise, or remove duplicate "
            "rows."
        )

    def _column(self, block: slice, added: float) -> None:
        """Columns of the factor, by those before them."""
        square, start, stop = self._square, block.start, block.stop
        rows = square[block, start:].copy()  # of the matrix, from the diagonal on
        own, before = rows[:, : stop - start], square[block, :start]
        own[:] = np.triu(own)  # below it is the factor, or nothing yet
        rows -= before @ square[start:, :start].T
        lengths = np.einsum("ij,ij->i", before, before)
        np.fill_diagonal(own, self.diagonal[block] + added - lengths)
        upper = scipy.linalg.cholesky(own, lower=False, check_finite=False)
        square[block, block] = np.triu(square[block, block], 1) + upper.T
        rest = rows[:, stop - start :]
        if rest.size:
            found = scipy.linalg.solve_triangular(upper, rest, trans=1, check_finite=False)
            square[stop:, block] = found.T

    def solve(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """What the factor says of (matrix + noise I)^-1 right, to the accuracy of float32."""
        scale = np.maximum(np.abs(right).max(axis=0), 1e-300)  # float32 has a smallest number
        found = (right / scale).astype(np.float32)
        square, blocks = self._square, self.blocks()
        for block in blocks:
            found[block] -= square[block, : block.start] @ found[: block.start]
            found[block] = self._triangle(block, found[block], 0)
        for block in reversed(blocks):
            found[block] -= square[block.stop :, block].T @ found[block.stop :]
            found[block] = self._triangle(block, found[block], 1)
        return found * scale

    def _triangle(self, block: slice, right, trans: int):
        lower = self._square[block, block]
        return scipy.linalg.solve_triangular(
            lower, right, lower=True, trans=trans, check_finite=False
        )
