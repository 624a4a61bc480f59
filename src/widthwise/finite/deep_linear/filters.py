"""Linear networks on grids: filters between positions, and their chain of Wishart matrices."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.finite.deep_linear.chain import WishartChain
from widthwise.finite.instance import FiniteNetwork
from widthwise.network.conv import Conv, ConvTranspose, reads
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Identity
from widthwise.network.pool import (
    AbstractLinear,
    Flatten,
    GlobalAveragePool,
    GlobalSumPool,
)
from widthwise.network.positions import Crop
from widthwise.network.reader import Unflatten
from widthwise.solve import float64

POOLS = AbstractLinear, Crop, GlobalAveragePool, GlobalSumPool  # positions by a fixed matrix
LARGEST = 1024  # positions, so that matrices between them find memory
AFFINE = Conv, ConvTranspose, Dense, Readout


class Filter(NamedTuple):
    """A layer of weights W (M, C', C): h_i = sum_mj taps_mij W_m^T h'_j.

    Positions i are those that are left of its own by the pools behind it.
    """

    taps: Float[np.ndarray, "M i j"]
    channels: int
    variance: float  # of a weight, constants of the network's scaling included

    def read(self, matrices: Float[np.ndarray, "s i i"]) -> Float[np.ndarray, "s j j"]:
        """The covariance of how h' is read, where these are how h is: means over its channels."""
        found: Any = sum(tap.T @ matrices @ tap for tap in self.taps)
        return self.channels * self.variance * found


def filters_of(net: FiniteNetwork) -> tuple[Filter, ...] | None:
    """A linear network's layers of weights, the readout last.

    None for other networks, those without hidden layers, and grids of over a thousand positions.

    >>> from widthwise.network import Conv, Flatten, Unflatten
    >>> from widthwise.scaling import NTK
    >>> network = Unflatten((4, 4)) >> Conv(padding="VALID") >> Flatten() >> Readout()
    >>> [found.taps.shape for found in filters_of(FiniteNetwork(network, 8, 16, 1, NTK()))]
    [(9, 4, 16), (4, 1, 4)]

    The first one's inputs are the positions of the data.
    """
    layers, numbers = net.network.sequence, net.network.in_sequence(net.numbers)
    if not all(map(_is_linear, layers)):
        return None
    shape = net.n_inputs[:-1] if isinstance(net.n_inputs, tuple) else ()
    if isinstance(layers[0], Unflatten):
        shape, layers, numbers = layers[0].shape, layers[1:], numbers[1:]
    found, flat = [], False
    before: Any = None  # what pools make of the data
    for layer, own in zip(layers, numbers, strict=True):
        if np.prod(shape) > LARGEST:
            return None
        eye = np.eye(int(np.prod(shape)))
        if isinstance(layer, POOLS):
            pooled = _applied(lambda x, f=layer: f.apply(None, x), eye, shape)
            shape, matrix = pooled.shape[:-1], pooled.reshape(-1, len(eye))
            if found:
                found[-1] = found[-1]._replace(taps=matrix @ found[-1].taps)
            else:
                before = matrix if before is None else matrix @ before
        elif isinstance(layer, Flatten):
            flat = True
        elif isinstance(layer, AFFINE):
            if flat:
                taps, shape, flat = eye[:, None], (), False
            elif isinstance(layer, Conv | ConvTranspose):
                read = _applied(lambda x, f=layer: reads(x, f.taps(x.shape[:-1])), eye, shape)
                shape = read.shape[:-1]
                taps = read.reshape(-1, read.shape[-1] // len(eye), len(eye)).swapaxes(0, 1)
            else:
                taps = eye[None]
            if not found and before is not None:
                taps = taps @ before
            weight = own.weight
            variance = float(weight.std * weight.multiplier) ** 2
            found.append(Filter(taps, weight.shape[-1], variance))
    return tuple(found) if len(found) > 1 else None


def _is_linear(layer: AbstractLayer) -> bool:
    if isinstance(layer, AFFINE):
        return float(layer.bias_variance) == 0  # type: ignore[arg-type]
    return isinstance(layer, (*POOLS, Flatten, Identity, Unflatten))


def _applied(function, eye: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a map of positions makes of one at each of them, in a feature of its own."""
    with float64():
        return np.asarray(function(jnp.asarray(eye.reshape(*shape, len(eye)))))


def chain_of(filters: tuple[Filter, ...]) -> WishartChain:
    """Of one output, which is sum_ic a_ic h_ic of the features of hidden layer l: A_l is the mean
    over channels of a a^T."""
    *hidden, readout = filters
    top = readout._replace(channels=1).read(np.ones((1, 1, 1)))[0]
    between = tuple(own.read for own in hidden[:0:-1])
    return WishartChain(top, tuple(own.channels for own in hidden[::-1]), between)
