"""Layers that rescale or drop features."""

from numbers import Integral
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.layer import AbstractLayer
from widthwise.network.signal import Signal


class LayerNorm(AbstractLayer):
    """(h - mean) / sqrt(variance + epsilon), over the features of each position.

    >>> Dense() >> LayerNorm() >> Relu() >> Readout()
    Dense() >> LayerNorm() >> Relu() >> Readout()

    Mean and variance do not fluctuate at infinite width; those of the data itself are taken as they
    are. It may stand anywhere.

    Args:
        axes: axes of the grid of positions over which mean and variance are taken as well; -1 is
            the last one.
        epsilon: added to the variance.
    """

    source: ClassVar[str] = "ba2016, section 3; yang2019, section 2"
    axes: tuple[int, ...] = eqx.field(default=(), static=True)
    epsilon: float = 1e-12

    def __check_init__(self):
        settings.number(self, "epsilon", low=0)
        if not (isinstance(self.axes, tuple) and all(isinstance(a, Integral) for a in self.axes)):
            raise TypeError(f"axes of LayerNorm is {self.axes!r}: give a tuple of whole numbers.")

    def signal(self, incoming: Signal) -> Signal:
        if incoming.shape is not None:
            self._numbered(len(incoming.shape))
        return incoming

    def weights(self, incoming: Signal):
        return None

    def apply(self, weights, x):
        return self._normalised(x, jnp.ones((1,) * x.ndim, x.dtype))

    def apply_known(self, weights, x, context):
        there = context.present
        return self.apply(weights, x) if there is None else self._normalised(x, there[..., None])

    def _normalised(self, x, there):
        """Over positions that are there only."""
        over = (*self._numbered(x.ndim - 1), x.ndim - 1)
        share = jnp.mean(jnp.broadcast_to(there, x.shape), axis=over, keepdims=True)
        share = jnp.where(share > 0, share, 1.0)
        centred = there * (x - jnp.mean(there * x, axis=over, keepdims=True) / share)
        variance = jnp.mean(centred**2, axis=over, keepdims=True) / share
        return centred / jnp.sqrt(variance + self.epsilon)

    def kernel(self, weights, moments):
        axes = self._numbered(moments.rank)
        return moments.normalised(moments.statistics(axes), self.epsilon)

    def fresh(self) -> bool:
        return False

    def _numbered(self, rank: int) -> tuple[int, ...]:
        if any(not -rank <= axis < rank for axis in self.axes):
            raise ValueError(
                f"{self!r} names axes of a grid of positions, and "
                + (
                    f"the one that arrives has {rank}: give numbers below that, from 0."
                    if rank
                    else "one vector arrives: leave axes out."
                )
            )
        return tuple(sorted({axis % rank for axis in self.axes}))


class Dropout(AbstractLayer):
    """Each feature kept with a probability and divided by it, for every input anew, as in training.

    >>> Dense() >> Relu() >> Dropout(keep=0.8) >> Readout()
    Dense() >> Relu() >> Dropout(keep=0.8) >> Readout()

    At prediction time networks do without it: leave it out there. What is dropped follows from the
    features that arrive, so that a network with given weights is a function.

    Args:
        keep: the probability, over 0 and at most 1.
    """

    source: ClassVar[str] = "schoenholz2017, section 4"
    keep: float = 0.5

    def __check_init__(self):
        settings.number(self, "keep", above=0)
        if self.keep > 1:
            raise ValueError(f"keep of Dropout is {self.keep}: give a probability, at most 1.")

    def signal(self, incoming: Signal) -> Signal:
        if incoming.gaussian is False and incoming.size is not None and not incoming.size.grows:
            raise ValueError(
                f"{self!r} stands on the data: it needs features whose number grows, so put it "
                "behind a layer with weights."
            )
        return incoming.remade(incoming.size, False)

    def weights(self, incoming: Signal):
        return None

    def apply(self, weights, x):
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
        mixed = bits.ravel() * (jnp.uint32(2654435761) + jnp.arange(x.size, dtype=jnp.uint32))
        key = jax.random.fold_in(jax.random.key(0), jnp.sum(mixed, dtype=jnp.uint32))
        kept = jax.random.bernoulli(key, self.keep, x.shape)
        return jnp.where(kept, x / self.keep, 0.0)

    def kernel(self, weights, moments):
        return moments.dropped(self.keep)

    def fresh(self) -> bool:
        return False
