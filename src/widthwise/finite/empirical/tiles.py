"""A kernel matrix from blocks of rows; of a symmetric one, half."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Tiling(NamedTuple):
    """How many blocks of how many rows, along both sides; None is the same rows again.

    >>> Tiling.of(200, None, 32)
    Tiling(n1=200, n2=None, size1=29, size2=29)
    >>> Tiling.of(200, None, 32).evaluated(keep=True), Tiling.of(200, None, 32).tiles
    (203, 28)
    """

    n1: int
    n2: int | None
    size1: int
    size2: int

    @staticmethod
    def of(n1: int, n2: int | None, block: int) -> "Tiling":
        """Blocks of equal sizes, so that one program serves them all."""
        size1 = -(-n1 // -(-n1 // block))
        size2 = size1 if n2 is None else -(-n2 // -(-n2 // block))
        return Tiling(n1, n2, size1, size2)

    @property
    def counts(self) -> tuple[int, int]:
        """Blocks along both sides."""
        return -(-self.n1 // self.size1), -(-(self.n2 or self.n1) // self.size2)

    @property
    def tiles(self) -> int:
        """Pairs of blocks that are computed."""
        left, right = self.counts
        return left * (left + 1) // 2 if self.n2 is None else left * right

    def evaluated(self, keep: bool) -> int:
        """Rows whose features are computed, if all are kept and if a block a side is."""
        left, right = self.counts
        if self.n2 is None:
            return (left if keep else self.tiles) * self.size1
        return left * self.size1 + (right if keep else self.tiles) * self.size2


def assemble(tiling: Tiling, x1, x2, keep: bool, features: Callable, tile: Callable) -> np.ndarray:
    """The matrix of tile(features(rows), features(rows)); `keep` holds the features of all rows."""
    symmetric = x2 is None
    lefts = _Blocks(x1, tiling.size1, features, keep, {})
    rights = lefts if symmetric else _Blocks(x2, tiling.size2, features, keep, {})
    found = None
    for i in range(tiling.counts[0]):
        left, rows = lefts.features_of(i), lefts.slice(i)
        for j in range(i if symmetric else 0, tiling.counts[1]):
            columns = rights.slice(j)
            right = left if symmetric and i == j else rights.features_of(j)
            part = tile(left, right)
            part = part[: rows.stop - rows.start, : columns.stop - columns.start]
            if found is None:
                shape = (tiling.n1, tiling.n2 or tiling.n1, *part.shape[2:])
                found = np.empty(shape, part.dtype)
            found[rows, columns] = part
            if symmetric and i != j:
                found[columns, rows] = _mirrored(part)
    assert found is not None
    return found


class _Blocks(NamedTuple):
    """Blocks of rows; the last is filled up with its last row."""

    x: jnp.ndarray
    size: int
    features: Callable
    keep: bool
    kept: dict

    def slice(self, index: int) -> slice:
        return slice(index * self.size, min((index + 1) * self.size, len(self.x)))

    def features_of(self, index: int):
        if index in self.kept:
            return self.kept[index]
        rows = self.x[self.slice(index)]
        missing = self.size - len(rows)
        if missing:
            rows = jnp.concatenate([rows, jnp.repeat(rows[-1:], missing, axis=0)])
        found = self.features(rows)
        if self.keep:
            self.kept[index] = found
        return found


def _mirrored(part: np.ndarray) -> np.ndarray:
    """Rows and columns swapped, and with all pairs of outputs these too."""
    return np.moveaxis(part, (0, 1), (1, 0)) if part.ndim < 4 else part.transpose(1, 0, 3, 2)
