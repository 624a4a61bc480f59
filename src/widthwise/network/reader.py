"""Layers that say how rows of data are read; they stand first."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.layer import AbstractLayer
from widthwise.network.signal import Signal, Size


class AbstractReader(AbstractLayer):
    """Acts on the data itself, before there are any moments."""

    reads_data: ClassVar[bool] = True

    def kernel(self, weights, moments):
        return moments  # which are of what was read

    def weights(self, incoming: Signal):
        return None

    def fresh(self) -> bool:
        return False


class Unflatten(AbstractReader):
    """Reads a row of numbers as a grid of positions.

    >>> Unflatten((8, 8)) >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()
    Unflatten() >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()

    Args:
        shape: the grid's extents.
        channels: numbers at each position.
        channels_first: whether a row holds one channel after the other, as CIFAR-10's files do,
            and not the channels of one position after the other.
    """

    source: ClassVar[str] = "novak2019, section 2"
    shape: tuple[int, ...] = eqx.field(default=(8, 8), static=True)
    channels: int = eqx.field(default=1, static=True)
    channels_first: bool = eqx.field(default=False, static=True)

    def __check_init__(self):
        settings.extents(self, "shape")
        settings.whole(self, "channels")

    @property
    def columns(self) -> int:
        """How many numbers a row has."""
        return math.prod(self.shape) * self.channels

    def signal(self, incoming: Signal) -> Signal:
        if incoming.shape:
            raise ValueError(
                f"{self!r} reads rows of data, and {incoming} arrive: put it first, or leave it "
                "out where the data are grids already."
            )
        if incoming.size is not None and incoming.size.fixed != self.columns:
            raise ValueError(
                f"{self!r} reads rows of {self.columns} numbers, and these have "
                f"{incoming.size.fixed}: give a shape and channels whose product that is."
            )
        return Signal(Size(fixed=self.channels), False, self.shape, linked=False)

    def apply(self, weights, x):
        if self.channels_first:
            return jnp.moveaxis(x.reshape(self.channels, *self.shape), 0, -1)
        return x.reshape(*self.shape, self.channels)
