"""Linear maps of positions: what images and sequences are cut, resized and mixed by."""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import numpy as np

from widthwise import settings
from widthwise.network.context import Context
from widthwise.network.pool import AbstractLinear, AbstractPositions, needs_order
from widthwise.network.signal import Signal
from widthwise.network.taps import taking

Method = Literal["nearest", "linear", "cubic", "lanczos3", "lanczos5"]
METHODS = ("nearest", "linear", "cubic", "lanczos3", "lanczos5")
Part = int | tuple[int | None, int | None, int]


class Crop(AbstractPositions):
    """Some positions of the grid.

    >>> Unflatten() >> Conv() >> Crop(((1, 6, 2), (None, None, -1))) >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Crop(parts=((1, 6, 2), (None, None, -1))) >> Flatten() >> Readout()

    Args:
        parts: for each axis (start, stop, step), as in a slice, or one number, which takes the axis
            away.
    """

    source: ClassVar[str] = "novak2019, section 2"
    parts: tuple[Part, ...] = eqx.field(default=((None, None, 1), (None, None, 1)), static=True)

    def __check_init__(self):
        if not (isinstance(self.parts, tuple) and self.parts and all(map(_is_part, self.parts))):
            raise TypeError(
                f"parts of Crop is {self.parts!r}: give (start, stop, step) or a number for each "
                "axis, steps other than 0."
            )

    def signal(self, incoming: Signal) -> Signal:
        needs_order(self, incoming, len(self.parts))
        if incoming.shape is None or None in incoming.shape:
            kept = tuple(None for part in self.parts if not isinstance(part, int))
            return incoming.moved(kept)
        for part, extent in zip(self.parts, incoming.shape, strict=True):
            if isinstance(part, int) and not -extent <= part < extent:  # type: ignore[operator]
                raise ValueError(f"{self!r} leaves no position: {incoming} arrive.")
        index = self._index(incoming.shape)  # type: ignore[arg-type]
        if min(map(len, index)) == 0:
            raise ValueError(f"{self!r} leaves no position: {incoming} arrive.")
        return incoming.moved(self._kept(index))

    def apply(self, weights, x):
        index = self._index(x.shape[:-1])
        return x[np.ix_(*index)].reshape(*self._kept(index), x.shape[-1])

    def kernel(self, weights, moments):
        def cut(grid):
            index = self._index(grid.shape)
            found, kept = grid.taken(index), self._kept(index)
            return found.reshaped(kept) if kept else found.flattened().mixed()

        return moments.on_grids(cut)

    def after(self, context: Context) -> Context | None:
        assert context.present is not None  # no graph: `signal` has seen to it
        index = self._index(context.present.shape)
        kept = self._kept(index)
        return (
            context.multiplied(taking(index, context.present.shape)).reshaped(kept)
            if kept
            else None
        )

    def _index(self, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        return tuple(
            np.atleast_1d(np.arange(s)[part if isinstance(part, int) else slice(*part)])
            for s, part in zip(shape, self.parts, strict=True)
        )

    def _kept(self, index) -> tuple[int, ...]:
        return tuple(
            len(i) for i, part in zip(index, self.parts, strict=True) if not isinstance(part, int)
        )


def _is_part(part) -> bool:
    """A number, or (start, stop, step)."""
    if isinstance(part, tuple) and len(part) == 3:
        return part[2] != 0 and all(x is None or _is_part(x) for x in part)
    return isinstance(part, int) and not isinstance(part, bool)


class Reshape(AbstractPositions):
    """As many positions on another grid, numbered row by row.

    >>> Unflatten((2, 2)) >> Conv() >> Reshape((4,)) >> Flatten() >> Readout()
    Unflatten(shape=(2, 2)) >> Conv() >> Reshape() >> Flatten() >> Readout()

    Args:
        shape: new extents.
    """

    source: ClassVar[str] = "novak2019, section 2"
    shape: tuple[int, ...] = eqx.field(default=(4,), static=True)

    def __check_init__(self):
        settings.extents(self, "shape")

    def signal(self, incoming: Signal) -> Signal:
        needs_order(self, incoming)
        if incoming.positions not in (None, math.prod(self.shape)):
            raise ValueError(
                f"{self!r} holds {math.prod(self.shape)} positions, and {incoming} arrive: give "
                f"extents whose product is {incoming.positions}."
            )
        return incoming.moved(self.shape)

    def apply(self, weights, x):
        return x.reshape(*self.shape, x.shape[-1])

    def kernel(self, weights, moments):
        return moments.on_grids(lambda grid: grid.reshaped(self.shape))

    def after(self, context: Context) -> Context:
        return context.reshaped(self.shape)


class Resize(AbstractLinear):
    """The grid resized as an image is.

    >>> Unflatten() >> Conv() >> Relu() >> Resize((16, 16)) >> Conv() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Relu() >> Resize(shape=(16, 16)) >> Conv() >> Flatten() >> Readout()

    Args:
        shape: new extents.
        method: "nearest", "linear", "cubic", "lanczos3" or "lanczos5", as in `jax.image.resize`;
            all are linear and separable, so all are exact.
        antialias: whether to average where the grid shrinks.
    """

    source: ClassVar[str] = "novak2019, section 2"
    shape: tuple[int, ...] = eqx.field(default=(4, 4), static=True)
    method: Method = eqx.field(default="linear", static=True)
    antialias: bool = eqx.field(default=True, static=True)

    def __check_init__(self):
        settings.extents(self, "shape")
        settings.one_of(self, "method", METHODS)

    def signal(self, incoming: Signal) -> Signal:
        needs_order(self, incoming, len(self.shape))
        return incoming.moved(self.shape)

    def matrices(self, shape):
        with jax.ensure_compile_time_eval():
            return tuple(
                np.asarray(jax.image.resize(
                    np.eye(old), (new, old), self.method, antialias=self.antialias
                ))
                for old, new in zip(shape, self.shape, strict=True)
            )  # fmt: skip


class PositionMatrix(AbstractLinear):
    """Positions multiplied by a matrix along one axis: output j is the sum over i of input i
    times `matrix[i][j]`.

    >>> Unflatten((2, 2)) >> Conv() >> PositionMatrix(((1.0,), (-1.0,)))
    Unflatten(shape=(2, 2)) >> Conv() >> PositionMatrix()

    Args:
        matrix: rows of numbers, (extent, outputs).
        axis: of the grid. For a matrix over all positions put `Reshape` in front.
    """

    source: ClassVar[str] = "novak2019, section 2"
    matrix: tuple[tuple[float, ...], ...] = eqx.field(default=((1.0,), (-1.0,)), static=True)
    axis: int = eqx.field(default=0, static=True)

    def __check_init__(self):
        rows = self.matrix if isinstance(self.matrix, tuple) else ()
        lengths = {len(row) if isinstance(row, tuple) else 0 for row in rows}
        numbers = (x for row in rows if isinstance(row, tuple) for x in row)
        if len(lengths) != 1 or 0 in lengths or not all(map(settings.is_number, numbers)):
            raise TypeError(
                f"matrix of PositionMatrix is {self.matrix!r}: give a tuple of rows, tuples of "
                "equally many finite numbers."
            )

    def signal(self, incoming: Signal) -> Signal:
        needs_order(self, incoming)
        if incoming.shape is None:
            return incoming.moved(None)
        rows, columns = np.shape(self.matrix)
        shape, fits = list(incoming.shape), 0 <= self.axis < len(incoming.shape)
        if not fits or shape[self.axis] not in (None, rows):
            raise ValueError(
                f"{self!r} does not fit: {incoming} arrive, and its matrix has {rows} rows for "
                f"axis {self.axis}."
            )
        shape[self.axis] = columns
        return incoming.moved(tuple(shape))

    def matrices(self, shape):
        return tuple(
            np.asarray(self.matrix).T if axis == self.axis else None for axis in range(len(shape))
        )
