"""Conjugate gradients in float64, for matrices that are known by their products alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.solve.linear import NotSolvable

TOLERANCE = 1e-8  # of the residual, relative to the right-hand side
MOST_STEPS = 400

Product = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]


class Solution(NamedTuple):
    """The solution of each column, the products it took, and the largest residual left."""

    value: Float[np.ndarray, "n k"]
    steps: int
    residual: float


def conjugate_gradients(
    product: Product,
    precondition: Product,
    right: Float[np.ndarray, "n k"],
    *,
    tolerance: float = TOLERANCE,
) -> Solution:
    """Solves A x = right for a symmetric positive definite A, every column by itself.

    >>> def identity(right): return right
    >>> found = conjugate_gradients(lambda x: np.diag([1.0, 2.0]) @ x, identity, np.ones((2, 1)))
    >>> found.value.round(12).tolist(), found.steps
    ([[1.0], [0.5]], 2)

    Args:
        product: right -> A right.
        precondition: right -> about A^-1 right, by a symmetric positive definite matrix; rounded
            in another way every time is good enough.
        right: columns.
        tolerance: of every column's residual, relative to that column.

    Raises NotSolvable if 400 products do not reach it.

    Source: golub1999, of inexact preconditioners.
    """
    size = np.linalg.norm(right, axis=0)
    value, after = np.zeros(right.shape), np.array(right, dtype=np.float64)
    left = size.copy()
    going = np.flatnonzero(size)  # the columns that are not solved yet
    after = after[:, going]
    along = precondition(after)
    power = np.sum(after * along, axis=0)
    for step in range(MOST_STEPS):
        if not len(going):
            return Solution(value, step, _largest(left, size))
        moved, before = product(along), after
        length = power / np.sum(along * moved, axis=0)
        value[:, going] += length * along
        after = before - length * moved
        left[going] = np.linalg.norm(after, axis=0)
        still = left[going] > tolerance * size[going]
        before, after, along = before[:, still], after[:, still], along[:, still]
        going, power = going[still], power[still]
        shaped = precondition(after)
        turn = np.sum(shaped * (after - before), axis=0) / power
        power = np.sum(shaped * after, axis=0)
        along = shaped + turn * along
    raise NotSolvable(
        f"After {MOST_STEPS} products a residual of {_largest(left, size):.1e} of the right-hand "
        f"side is left, and {tolerance:g} was wanted: add noise, or give more memory."
    )


def _largest(left: np.ndarray, size: np.ndarray) -> float:
    return float(np.max(left / np.where(size > 0, size, 1.0), initial=0.0))
