"""Poolings, and the layers that make one vector of a grid of positions."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from widthwise import settings
from widthwise.network.layer import AbstractLayer
from widthwise.network.pairs import PairGrid
from widthwise.network.signal import Pairs, Signal
from widthwise.network.taps import PADDINGS, Padding, Taps, check_strides, window_matrix


class AbstractPositions(AbstractLayer):
    """A layer without weights that needs a grid, and keeps Gaussian features Gaussian."""

    def weights(self, incoming: Signal):
        return None

    def fresh(self) -> bool:
        return False


class AbstractLinear(AbstractPositions):
    """Positions multiplied by a matrix along each axis of the grid."""

    @abc.abstractmethod
    def matrices(self, shape: tuple[int, ...]) -> tuple[np.ndarray | None, ...]:
        """(outputs, extent) of each axis; None leaves it as it is."""

    def apply(self, weights, x):
        for axis, matrix in enumerate(self.matrices(x.shape[:-1])):
            if matrix is not None:
                moved = jnp.tensordot(x, jnp.asarray(matrix, x.dtype), ((axis,), (1,)))
                x = jnp.moveaxis(moved, -1, axis)
        return x

    def kernel(self, weights, moments):
        return moments.on_grids(lambda grid: _pairs(grid).linear(self.matrices(grid.shape)))

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL


class AbstractPool(AbstractLinear):
    """Windows of positions, each made one.

    Args:
        window: positions along each axis.
        strides: steps of the window along each axis; None is the window, so that windows do not
            overlap.
        padding: "VALID", "SAME" or "CIRCULAR", as for `Conv`.
    """

    window: tuple[int, ...] = eqx.field(default=(2, 2), static=True)
    strides: tuple[int, ...] | None = eqx.field(default=None, static=True)
    padding: Padding = eqx.field(default="VALID", static=True)

    def __check_init__(self):
        settings.extents(self, "window")
        check_strides(self, self.strides, self.window)
        settings.one_of(self, "padding", PADDINGS)

    def taps(self, shape: tuple[int, ...]) -> tuple[Taps, ...]:
        """The windows on a grid of this shape, one an axis."""
        strides = self.strides or self.window
        return tuple(
            Taps.of(s, count, stride, self.padding)
            for s, count, stride in zip(shape, self.window, strides, strict=True)
        )

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming, len(self.window))
        if incoming.shape is None or None in incoming.shape:
            return Signal(incoming.size, incoming.gaussian, (None,) * len(self.window))
        shape: tuple[int, ...] = incoming.shape  # type: ignore[assignment]
        found = tuple(own.outputs(s) for own, s in zip(self.taps(shape), shape, strict=True))
        if min(found) < 1:
            raise ValueError(
                f"{self!r} does not fit: {incoming} arrive. Use a smaller window, or "
                'padding="SAME".'
            )
        return Signal(incoming.size, incoming.gaussian, found)


class AveragePool(AbstractPool):
    """The mean of each window. Arguments as for `AbstractPool`, and

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> AveragePool() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Relu() >> AveragePool() >> Flatten() >> Readout()

    Args:
        edges: with padding "SAME", whether windows at the edge are means of the positions inside
            the grid only, instead of counting zeros outside it.
    """

    source: ClassVar[str] = "novak2019, section 3.2"
    edges: bool = eqx.field(default=False, static=True)

    def matrices(self, shape):
        return tuple(
            window_matrix(s, own, average=True, edges=self.edges)
            for s, own in zip(shape, self.taps(shape), strict=True)
        )


class SumPool(AbstractPool):
    """The sum of each window. Arguments as for `AbstractPool`.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> SumPool() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Relu() >> SumPool() >> Flatten() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 3.2"

    def matrices(self, shape):
        return tuple(
            window_matrix(s, own, average=False, edges=False)
            for s, own in zip(shape, self.taps(shape), strict=True)
        )


class GlobalAveragePool(AbstractPositions):
    """The mean over all positions: one vector.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()
    Unflatten() >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 3.2"

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        return Signal(incoming.size, incoming.gaussian, ())

    def apply(self, weights, x):
        return jnp.mean(x, axis=tuple(range(x.ndim - 1)))

    def kernel(self, weights, moments):
        return moments.on_grids(lambda grid: _pairs(grid).pooled())

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL


class GlobalSumPool(AbstractPositions):
    """The sum over all positions: one vector.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> GlobalSumPool() >> Readout()
    Unflatten() >> Conv() >> Relu() >> GlobalSumPool() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 3.2"

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        return Signal(incoming.size, incoming.gaussian, ())

    def apply(self, weights, x):
        return jnp.sum(x, axis=tuple(range(x.ndim - 1)))

    def kernel(self, weights, moments):
        return moments.on_grids(
            lambda grid: _pairs(grid).pooled().times(float(math.prod(grid.shape)))
        )

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL


class Flatten(AbstractPositions):
    """All features of all positions as one vector.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Relu() >> Flatten() >> Readout()

    The features at different positions differ in law, and stay apart until a layer with weights
    reads them all: so a nonlinearity may follow.
    """

    source: ClassVar[str] = "novak2019, section 3.1"

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        known = incoming.size is not None and incoming.positions is not None
        size = incoming.size.by(incoming.positions) if known else None  # type: ignore
        return Signal(size, incoming.gaussian, ())

    def apply(self, weights, x):
        return x.reshape(-1)

    def kernel(self, weights, moments):
        return moments.flattened()

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.SAME


def needs_grid(layer: AbstractLayer, incoming: Signal, rank: int | None = None) -> None:
    """Refuses a layer where there are no positions, or a grid of another rank."""
    if incoming.shape == ():
        raise ValueError(
            f"{layer!r} needs a grid of positions, and one vector arrives: put it before Flatten() "
            "or pooling, or put Unflatten() first."
        )
    if rank is not None and incoming.shape is not None and len(incoming.shape) != rank:
        raise ValueError(
            f"{layer!r} has {rank} axes, and {incoming} arrive: give as many as there are."
        )


def _pairs(grid) -> PairGrid:
    assert isinstance(grid, PairGrid)  # `needs` has seen to it
    return grid
