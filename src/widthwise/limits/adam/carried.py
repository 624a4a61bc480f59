"""Fields through random networks, where the training rows are too many to factor their kernels.

A layer's fields are fresh Gaussian weights times the features of a network of fixed width, forwards
and backwards, which stands for the layers below and above. Its kernels are off by order
width^-1/2, in a direction that its seed decides: halves with seeds of their own tell that too.
"""

from typing import final

import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.activate import activate
from widthwise.limits.adam.images import (
    AbstractImages,
    Factored,
    Image,
    Images,
    by_readout,
    by_weights,
    image,
)
from widthwise.limits.adam.sites import Sites

FACTORED = 4096  # training rows up to which kernels are factored: 1 GB a hidden layer, minutes
WIDTH = 2048  # of the random networks that stand for them


def images_of(
    sites: Sites, x_train: Float[np.ndarray, "n d"], halves: int
) -> tuple[AbstractImages, ...]:
    """Of each half: exact for up to 4,096 training rows; for more through random networks of width
    2,048, one a half."""  # fmt: skip
    if len(x_train) <= FACTORED:
        return halves * (Factored(sites, x_train),)
    return tuple(Carried(sites, x_train, half) for half in range(halves))


@final
class Carried(AbstractImages):
    """A random network, drawn again from its seed."""

    def __init__(self, sites: Sites, x_train: Float[np.ndarray, "n d"], seed: int):
        self._sites, self._x, self._seed = sites, x_train, seed

    def laws(self, x: Float[np.ndarray, "m d"] | None) -> None:
        return None

    def at(self, x: Float[np.ndarray, "m d"] | None) -> Images:
        sites, features = self._sites, (self._x if x is None else x).T
        forward, slopes = [], []
        for number, site in enumerate(sites.hidden):
            reads = features if number == 0 else features / np.sqrt(len(features))
            forward.append(by_weights(reads, site.weight, site.bias))
            found = activate(site.activation, self._drawn(forward[-1], 2 * number))
            features, slope = (part.T for part in found)
            slopes.append(slope)
        backward = [by_readout(sites.readout.weight, features.shape[1])]
        for number in reversed(range(1, len(sites.hidden))):
            weight = sites.hidden[number].weight
            dh = self._drawn(backward[0], 2 * number + 1).T * slopes[number]
            backward.insert(0, image(weight.gain * weight.std * dh / np.sqrt(len(dh))))
        return Images(tuple(forward), tuple(backward))

    def _drawn(self, own: Image, number: int) -> Float[np.ndarray, "m w"]:
        rng = np.random.default_rng([self._seed, number, WIDTH])
        return own.matrix.T @ rng.standard_normal((len(own.matrix), WIDTH), dtype=np.float32)
