"""Symmetric matrices that are not at hand as a whole: tiles, and products with vectors."""

import abc
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from widthwise.memory import cores

COLUMNS = 64  # multiplied at once: what the threads hold meanwhile is so many columns each
STRIP = 256  # rows of a tile that are in float64 at once, so that they stay in cache


def blocks_of(size: int, edge: int) -> list[slice]:
    """So many rows in blocks of `edge`, the last of what is left.

    >>> blocks_of(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(i, min(i + edge, size)) for i in range(0, size, edge)]


class AbstractSymmetric(abc.ABC):
    """A symmetric matrix, given by its tiles on and above the diagonal.

    Attributes:
        size: rows and columns.
        edge: rows of a tile.
    """

    size: int
    edge: int

    @abc.abstractmethod
    def tile(self, a: slice, b: slice) -> Float[np.ndarray, "n m"]:
        """Rows a against columns b, both `blocks`, a not after b; a tile on the diagonal is whole.
        Several threads may call it; the next call in one thread may overwrite what it gave."""

    def blocks(self) -> list[slice]:
        """The rows of each tile."""
        return blocks_of(self.size, self.edge)

    def product(
        self, right: Float[np.ndarray, "n k"], advance: Callable[[float], None] = lambda share: None
    ) -> Float[np.ndarray, "n k"]:
        """The matrix times `right`, summed in float64 in the same order for any number of threads.

        `advance` is called with the share done since the last call.
        """
        found = np.zeros(right.shape)
        parts = range(0, right.shape[1], COLUMNS)
        for columns in (slice(i, i + COLUMNS) for i in parts):
            few = np.ascontiguousarray(right[:, columns], dtype=np.float64)
            for share, (start, part) in self._rows(few):
                found[start:, columns] += part
                advance(share / len(parts))
        return found

    def _rows(self, right) -> Iterator[tuple[float, tuple[int, np.ndarray]]]:
        """What each row of tiles, from the diagonal on, adds to the product; in their order."""
        blocks, half = self.blocks(), self.size**2 / 2

        def one(number: int):
            a = blocks[number]
            part = np.zeros((self.size - a.start, right.shape[1]))
            buffer = np.empty((STRIP, self.edge))
            for b in blocks[number:]:
                tile, beyond = self.tile(a, b), part[b.start - a.start : b.stop - a.start]
                for strip in blocks_of(len(tile), STRIP):
                    double = buffer[: strip.stop - strip.start, : tile.shape[1]]
                    double[:] = tile[strip]
                    part[strip] += double @ right[b]
                    if a != b:
                        beyond += double.T @ right[a][strip]
            rows = a.stop - a.start
            return rows * (self.size - a.start - rows / 2) / half, (a.start, part)

        # One more than there are threads is under way, and what waits to be added is a few columns.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
            todo = iter(range(len(blocks)))
            waiting = [pool.submit(one, number) for number in itertools.islice(todo, cores() + 1)]
            try:
                while waiting:
                    yield waiting.pop(0).result()
                    waiting += [pool.submit(one, number) for number in itertools.islice(todo, 1)]
            except BaseException:  # ctrl-C too: what has not begun is not begun
                pool.shutdown(cancel_futures=True)
                raise
