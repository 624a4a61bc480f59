"""Kernels between drawings and all turned training drawings, kept in float32 or made in passing."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Float32, Int

from widthwise.memory import check_free
from widthwise.tasks.fewshot.episodes import Part

TILE = 64  # drawings whose kernels are made at a time

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class KernelTable:
    """Values of f(x) = sum K(x, drawing) C at drawings.

    A kernel does not change when both drawings are turned, so one row serves a drawing in all its
    orientations: K(x turned by a, z turned by b) = K(x, z turned by b - a).

    Args:
        known: the training drawings, n of them in o orientations.
        kernel: of inner products and norms.
        rows: by number of the part, K of its drawings with all turned training drawings.
    """

    known: Part
    kernel: Kernel
    rows: dict[int, Float32[np.ndarray, "m columns"]]

    @classmethod
    def of(cls, known: Part, kept: tuple[Part, ...], kernel: Kernel) -> "KernelTable":
        """Makes the rows of the parts that are kept.

        Raises MemoryError, before anything is computed, where they do not fit.
        """
        columns = len(known.rows) * known.orientations
        _check(sum(len(part.rows) for part in kept), columns)
        rows = {}
        for part in kept:
            rows[part.number] = np.empty((len(part.rows), columns), np.float32)
            for place, tile in _tiles(known, part, kernel):
                rows[part.number][place] = tile
        return cls(known, kernel, rows)

    def values(
        self, coefficients: Float[np.ndarray, "n o k"], part: Part,
        rows: Int[np.ndarray, "t p"], turns: Int[np.ndarray, "t p"],
    ) -> Float[np.ndarray, "t p k"]:  # fmt: skip
        """f at turned drawings of a part whose rows are kept."""
        turned, kept = _turned(coefficients), self.rows[part.number]
        places, found = part.places[rows], np.empty((*rows.shape, coefficients.shape[2]))
        for turn in range(part.orientations):
            here = turns == turn
            found[here] = kept[places[here]] @ turned[turn]
        return found

    def everywhere(
        self, coefficients: Float[np.ndarray, "n o k"], part: Part
    ) -> Float[np.ndarray, "m turns k"]:
        """f at every drawing of a part in its orientations."""
        side_by_side = np.concatenate(_turned(coefficients)[: part.orientations], axis=1)
        if part.number in self.rows:
            found = self.rows[part.number] @ side_by_side
        else:
            tiles = _tiles(self.known, part, self.kernel)
            found = np.concatenate([tile @ side_by_side for _, tile in tiles])
        return found.reshape(len(found), part.orientations, -1).astype(np.float64)


def _turned(coefficients: Float[np.ndarray, "n o k"]) -> list[Float32[np.ndarray, "columns k"]]:
    """The coefficients as a drawing sees them that is turned by 0, 1, ... quarters."""
    orientations, k = coefficients.shape[1:]
    return [
        np.roll(coefficients, -turn, axis=1).reshape(-1, k).astype(np.float32)
        for turn in range(orientations)
    ]


def _tiles(
    known: Part, part: Part, kernel: Kernel
) -> Iterator[tuple[slice, Float32[np.ndarray, "m columns"]]]:
    """Kernels of a few drawings at a time with all turned training drawings."""
    columns = np.concatenate(list(known.every_turn(np.float32)), axis=1)
    columns = columns.reshape(-1, known.dimension)  # a drawing's turns one after another
    sizes = np.sqrt(np.repeat(known.squared_sizes, known.orientations)).astype(np.float32)
    own = np.sqrt(part.squared_sizes).astype(np.float32)
    for start in range(0, len(part.rows), TILE):
        place = slice(start, start + TILE)
        drawn = part.drawings.pixels(part.rows[place], 0 * part.rows[place])
        inner = drawn.astype(np.float32) @ columns.T
        yield place, kernel(inner, own[place, None], sizes[None, :]).astype(np.float32)


def _check(rows: int, columns: int) -> None:
    what = f"Kernels of {rows} drawings with {columns} turned training drawings"
    check_free(4 * rows * columns, what, "leave the ReLU kernels out")
