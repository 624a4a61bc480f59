"""Both halves' neurons at the training rows, shared by the trainings that are alive together."""

import functools
import weakref
from typing import final

import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.blocks import blocks_of
from widthwise.limits.adam.carried import images_of
from widthwise.limits.adam.half import Neurons, drawn
from widthwise.limits.adam.linear import Kernels, kernels_of
from widthwise.limits.adam.neurons import Counts, Layer
from widthwise.limits.adam.sites import Sites
from widthwise.limits.halves import HALVES
from widthwise.limits.shared import digest


@final
class Pool:
    """What each half is drawn from, and its neurons, which are drawn when they are first read."""

    def __init__(self, sites: Sites, counts: Counts, x_train: Float[np.ndarray, "n d"]):
        self.neurons = tuple(
            Neurons(sites, counts, images, half)
            for half, images in enumerate(images_of(sites, x_train, HALVES))
        )

    @functools.cached_property
    def kernels(self) -> Kernels | None:
        """Tangent kernels of the training rows, which both halves share."""
        one = self.neurons[0]
        return kernels_of(blocks_of(one.sites, one.counts), one.images, None)

    @functools.cached_property
    def layers(self) -> tuple[tuple[Layer, ...], ...]:
        """The neurons of each half at the training rows."""
        return tuple(drawn(half) for half in self.neurons)


# Gigabytes that took minutes to draw: found again by trainings at other step sizes and orders,
# and given back with the last of them.
_alive: weakref.WeakValueDictionary[tuple, Pool] = weakref.WeakValueDictionary()


def pool_of(sites: Sites, counts: Counts, x_train: Float[np.ndarray, "n d"]) -> Pool:
    """The pool of these rows that is alive, or a new one."""
    key = sites, counts, digest(x_train)
    found = _alive.get(key)
    if found is None:
        found = _alive[key] = Pool(sites, counts, x_train)
    return found
