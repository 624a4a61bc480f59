"""Filters: weights that look at a neighbourhood of each position."""

import abc
import itertools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.context import Context
from widthwise.network.dense import Affine, check_affine
from widthwise.network.grid import AbstractGrid
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import AbstractMoments
from widthwise.network.signal import Signal, Size
from widthwise.network.taps import PADDINGS, Padding, Taps, check_strides
from widthwise.network.weight import Weight
from widthwise.scaling import Number


class AbstractFilter(AbstractLayer):
    """What the three filters share.

    Args:
        filter_shape: taps along each axis of the grid.
        strides: steps of the filter along each axis; None is one.
        padding: "SAME" (zeros around the grid), "VALID" (the filter stays inside), or "CIRCULAR"
            (the grid goes round).
        times: features in units of the width.
        weight_variance: entries of W start with variance weight_variance / (fan_in taps).
        bias_variance, bias_multiplier, lr_multiplier: as for `Dense`.
    """

    filter_shape: tuple[int, ...] = eqx.field(default=(3, 3), static=True)
    strides: tuple[int, ...] | None = eqx.field(default=None, static=True)
    padding: Padding = eqx.field(default="SAME", static=True)
    times: int = 1
    weight_variance: Number = 2.0
    bias_variance: Number = 0.0
    bias_multiplier: Number = 0.1
    lr_multiplier: Number = 1.0

    def __check_init__(self):
        settings.whole(self, "times")
        settings.extents(self, "filter_shape")
        check_strides(self, self.strides, self.filter_shape)
        settings.one_of(self, "padding", PADDINGS)
        check_affine(self)

    @abc.abstractmethod
    def along(self, extent: int, count: int, stride: int) -> Taps:
        """The filter along one axis."""

    def taps(self, shape: tuple[int, ...]) -> tuple[Taps, ...]:
        """The filter on a grid of this shape, one an axis."""
        strides = self.strides or (1,) * len(self.filter_shape)
        return tuple(map(self.along, shape, self.filter_shape, strides))

    def signal(self, incoming: Signal) -> Signal:
        not_on_graphs(self, incoming)
        rank = len(self.filter_shape)
        shape = (None,) * rank if incoming.shape is None else incoming.shape
        if len(shape) != rank:
            raise ValueError(
                f"{self!r} has {rank} axes, and {incoming} arrive: give a filter_shape with as "
                "many axes as there are, or put Unflatten() first."
            )
        moved = incoming.moved(self._shape(incoming, shape))
        return moved.remade(Size(times=self.times), True)

    def _shape(self, incoming: Signal, shape: tuple[int | None, ...]):
        found = []
        for axis, extent in enumerate(shape):
            if extent is None:
                found.append(None)
                continue
            found.append(self.taps((extent,) * len(shape))[axis].outputs(extent))
            if found[-1] < 1:
                raise ValueError(
                    f"{self!r} does not fit: {incoming} arrive. Use a smaller filter, or "
                    'padding="SAME".'
                )
        return tuple(found)

    def tensors(self, incoming: Signal, copies: tuple[int, ...]) -> Affine:
        """The filter's specifications, for positions that each have a copy or share one."""
        if incoming.size is None:
            raise ValueError(f"The number of features that arrive at {self!r} is not known.")
        leaving = Size(times=self.times)
        return Affine(
            Weight(incoming.size, leaving, self.weight_variance, lr_multiplier=self.lr_multiplier,
                   taps=self.filter_shape, copies=copies),
            Weight(None, leaving, self.bias_variance, self.bias_multiplier, self.lr_multiplier,
                   copies=copies),
        )  # fmt: skip

    def after(self, context: Context) -> Context:
        assert context.present is not None  # no graph: `signal` has seen to it
        return context.slid(self.taps(context.present.shape))

    def fresh(self) -> bool:
        return True


class Conv(AbstractFilter):
    """A convolution, over any number of axes. Arguments as for `AbstractFilter`.

    >>> Unflatten((8, 8)) >> Conv((3, 3), padding="VALID") >> Relu() >> Flatten() >> Readout()
    Unflatten() >> Conv(padding='VALID') >> Relu() >> Flatten() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 2; arora2019, section 4"

    def along(self, extent: int, count: int, stride: int) -> Taps:
        return Taps.of(extent, count, stride, self.padding)

    def weights(self, incoming: Signal) -> Affine:
        return self.tensors(incoming, ())

    def apply(self, weights, x):
        return filtered(x, self.taps(x.shape[:-1]), weights.weight) + weights.bias

    def kernel(self, weights, moments):
        grid = grid_of(moments)
        return grid.convolved(self.taps(grid.shape), weights.weight, weights.bias)


class ConvTranspose(AbstractFilter):
    """A transposed convolution, which spreads each position over `strides` as many. Arguments as
    for `Conv`.

    >>> Unflatten((4, 4)) >> ConvTranspose(strides=(2, 2)) >> Flatten() >> Readout()
    Unflatten(shape=(4, 4)) >> ConvTranspose(strides=(2, 2)) >> Flatten() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 2; dumoulin2016, section 4"

    def along(self, extent: int, count: int, stride: int) -> Taps:
        return Taps.transposed(count, stride, self.padding)

    def weights(self, incoming: Signal) -> Affine:
        return self.tensors(incoming, ())

    def apply(self, weights, x):
        return filtered(x, self.taps(x.shape[:-1]), weights.weight) + weights.bias

    def kernel(self, weights, moments):
        grid = grid_of(moments)
        return grid.convolved(self.taps(grid.shape), weights.weight, weights.bias)


class ConvLocal(AbstractFilter):
    """A convolution whose weights and biases each position has for itself. Arguments as for `Conv`.

    >>> Unflatten((4, 4)) >> ConvLocal() >> Relu() >> Flatten() >> Readout()
    Unflatten(shape=(4, 4)) >> ConvLocal() >> Relu() >> Flatten() >> Readout()
    """

    source: ClassVar[str] = "novak2019, section 5"

    def along(self, extent: int, count: int, stride: int) -> Taps:
        return Taps.of(extent, count, stride, self.padding)

    def weights(self, incoming: Signal) -> Affine:
        shape = self.signal(incoming).shape
        if shape is None or None in shape:
            raise ValueError(f"The grid that arrives at {self!r} is not known.")
        return self.tensors(incoming, shape)  # type: ignore[arg-type]

    def apply(self, weights, x):
        # what a position reads becomes its features, and each position has its own matrix
        read = reads(x, self.taps(x.shape[:-1]))
        own = weights.weight.reshape(*read.shape, -1)
        return jnp.einsum("...i,...io->...o", read, own) + weights.bias

    def kernel(self, weights, moments):
        grid = grid_of(moments)
        return grid.unshared(self.taps(grid.shape), weights.weight, weights.bias)


def not_on_graphs(layer: AbstractLayer, incoming: Signal) -> None:
    """Refuses a layer that knows which position stands beside which, where they are nodes."""
    if incoming.linked:
        raise ValueError(
            f"{layer!r} reads positions by their order, and these are the nodes of a graph: use "
            "Aggregate() and Dense()."
        )


def grid_of(moments: AbstractMoments) -> AbstractGrid:
    """Moments with positions, their features all alike."""
    found = moments.mixed()
    assert isinstance(found, AbstractGrid)  # composition has seen to it
    return found


def filtered(x, taps: tuple[Taps, ...], weight):
    """One example (*s, c) through a filter (*taps, c, k).

    As a product with what the filter reads at every position: inside a loop XLA's convolution is a
    hundred times slower on a CPU, and training is a loop.
    """
    return reads(x, taps) @ weight.reshape(-1, weight.shape[-1])


def reads(x, taps: tuple[Taps, ...]):
    """What a filter reads of one example (*s, c), tap by tap, at every position: (*o, taps c)."""
    for axis, own in enumerate(taps):
        x = own.padded(x, axis)
    strides = tuple(own.stride for own in taps)
    last = [  # the place of the last window along each axis
        (length - own.taps) // own.stride * own.stride
        for length, own in zip(x.shape, taps, strict=False)
    ]
    seen = [
        jax.lax.slice(
            x, (*at, 0), (*(a + b + 1 for a, b in zip(at, last, strict=True)), x.shape[-1]),
            (*strides, 1),
        )
        for at in itertools.product(*(range(own.taps) for own in taps))
    ]  # fmt: skip
    return jnp.concatenate(seen, axis=-1)
