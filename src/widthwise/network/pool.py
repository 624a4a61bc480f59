"""Poolings, and the layers that make one vector of a grid of positions."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from widthwise import settings
from widthwise.network.context import Context
from widthwise.network.conv import not_on_graphs
from widthwise.network.grid import AbstractPairGrid
from widthwise.network.layer import AbstractLayer, AbstractUnruled
from widthwise.network.signal import Pairs, Signal
from widthwise.network.taps import PADDINGS, Padding, Taps, along, check_strides, window_matrix


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
        return along(x, self.matrices(x.shape[:-1]))

    def kernel(self, weights, moments):
        return moments.on_grids(lambda grid: all_pairs(grid).linear(self.matrices(grid.shape)))

    def after(self, context: Context) -> Context:
        assert context.present is not None  # no graph: `signal` has seen to it
        return context.multiplied(self.matrices(context.present.shape))

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL


class AbstractPool(AbstractPositions):
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

    def after(self, context: Context) -> Context:
        assert context.present is not None  # no graph: `signal` has seen to it
        return context.multiplied(self.windows(context.present.shape))

    def windows(
        self, shape: tuple[int, ...], average: bool = False, edges: bool = False
    ) -> tuple[np.ndarray, ...]:
        """The matrices of the windows' sums, or means, on a grid of this shape."""
        return tuple(
            window_matrix(s, own, average=average, edges=edges)
            for s, own in zip(shape, self.taps(shape), strict=True)
        )

    def signal(self, incoming: Signal) -> Signal:
        return self.pooled(incoming)

    def pooled(self, incoming: Signal) -> Signal:
        """What arrives, on the grid of the windows."""
        needs_order(self, incoming, len(self.window))
        if incoming.shape is None or None in incoming.shape:
            return incoming.moved((None,) * len(self.window))
        shape: tuple[int, ...] = incoming.shape  # type: ignore[assignment]
        found = tuple(own.outputs(s) for own, s in zip(self.taps(shape), shape, strict=True))
        if min(found) < 1:
            raise ValueError(
                f"{self!r} does not fit: {incoming} arrive. Use a smaller window, or "
                'padding="SAME".'
            )
        return incoming.moved(found)


class AveragePool(AbstractPool, AbstractLinear):
    """The mean of each window. Arguments as for `AbstractPool`, and

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> AveragePool() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Relu() >> AveragePool() >> Flatten() >> Readout()

    Args:
        edges: whether windows at the edge, with padding "SAME", are means of the positions inside
            the grid only, instead of counting zeros outside it; and so for missing positions.
    """

    source: ClassVar[str] = "novak2019, section 3.2"
    edges: bool = eqx.field(default=False, static=True)

    def matrices(self, shape):
        return self.windows(shape, average=True, edges=self.edges)

    def apply_known(self, weights, x, context):
        found, there = self.apply(weights, x), context.present
        if there is None or not self.edges:
            return found
        share = self.apply(weights, there[..., None])
        return found / jnp.where(share > 0, share, 1.0)

    def kernel(self, weights, moments):
        return moments.on_grids(
            lambda grid: all_pairs(grid).linear(self.matrices(grid.shape), average=self.edges)
        )


class SumPool(AbstractPool, AbstractLinear):
    """The sum of each window. Arguments as for `AbstractPool`.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> SumPool() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Relu() >> SumPool() >> Flatten() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 3.2"

    def matrices(self, shape):
        return self.windows(shape)


class MaxPool(AbstractPool, AbstractUnruled):
    """The largest value of each feature in each window. Arguments as for `AbstractPool`.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> MaxPool() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> Relu() >> MaxPool() >> Flatten() >> Readout()

    The expectation of two maxima of Gaussians has no closed form, so width inf is refused but for
    `MonteCarlo(network)`; finite widths train. With padding "SAME", windows at the edge see the
    positions inside the grid only. What leaves is not Gaussian: put nonlinearities in front.
    """

    source: ClassVar[str] = "novak2019, section 4"
    instead: ClassVar[str] = "AveragePool"

    def signal(self, incoming: Signal) -> Signal:
        found = self.pooled(incoming)
        return found.remade(found.size, False)

    def apply(self, weights, x):
        for axis, own in enumerate(self.taps(x.shape[:-1])):
            at, inside = own.reads(x.shape[axis])
            read = jnp.moveaxis(jnp.take(x, at, axis=axis), (axis, axis + 1), (0, 1))
            seen = jnp.where(inside.reshape(*inside.shape, *(1,) * (x.ndim - 1)), read, -jnp.inf)
            x = jnp.moveaxis(jnp.max(seen, axis=1), 0, axis)
        return x

    def apply_known(self, weights, x, context):
        there = context.present
        if there is None:
            return self.apply(weights, x)
        found = self.apply(weights, jnp.where(there[..., None] > 0, x, -jnp.inf))
        return jnp.where(jnp.isfinite(found), found, 0.0)


class GlobalAveragePool(AbstractPositions):
    """The mean over all positions that are there: one vector.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()
    Unflatten() >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 3.2"

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        return incoming.moved(())

    def apply(self, weights, x):
        return jnp.mean(x, axis=tuple(range(x.ndim - 1)))

    def apply_known(self, weights, x, context):
        share = 1.0 if context.present is None else jnp.mean(context.present)
        return self.apply(weights, x) / jnp.where(share > 0, share, 1.0)

    def after(self, context: Context) -> None:
        return None

    def kernel(self, weights, moments):
        return moments.on_grids(lambda grid: all_pairs(grid).pooled(average=True))

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
        return incoming.moved(())

    def apply(self, weights, x):
        return jnp.sum(x, axis=tuple(range(x.ndim - 1)))

    def after(self, context: Context) -> None:
        return None

    def kernel(self, weights, moments):
        return moments.on_grids(lambda grid: all_pairs(grid).pooled(average=False))

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
        return incoming.moved(()).remade(size, incoming.gaussian)

    def apply(self, weights, x):
        return x.reshape(-1)

    def after(self, context: Context) -> None:
        return None

    def kernel(self, weights, moments):
        return moments.flattened()

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.SAME


def needs_order(layer: AbstractLayer, incoming: Signal, rank: int | None = None) -> None:
    """Refuses a layer where there are no positions in an order, or a grid of another rank."""
    needs_grid(layer, incoming, rank)
    not_on_graphs(layer, incoming)


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


def all_pairs(grid) -> AbstractPairGrid:
    """A grid as what holds every pair of positions."""
    assert isinstance(grid, AbstractPairGrid)  # `needs` has seen to it
    return grid
