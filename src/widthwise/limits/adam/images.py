"""Gaussian fields as standard normal numbers times a matrix, at training and at new rows.

A field of covariance K at the training rows is z L', K = L L'. At a new row it is its mean given
the training rows, which is linear in z, and noise of what variance is left. Only a row's own law
together with the training rows enters a prediction: the noise may be the same number at all rows.
"""

import abc
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.laws import laws, own_laws
from widthwise.limits.adam.sites import Sites, Tensor
from widthwise.network.moments import Moments
from widthwise.solve import cholesky

FACTORED = 4096  # training rows up to which kernels are factored: more cost less through networks
WIDTH = 2048  # of the random networks that stand for them


class Image(NamedTuple):
    """field = z matrix + noise * spread."""

    matrix: Float[np.ndarray, "r m"]
    spread: Float[np.ndarray, " m"]


class Images(NamedTuple):
    """Of the fields h and dx of each hidden layer, first to last, at the same rows."""

    forward: tuple[Image, ...]
    backward: tuple[Image, ...]


class AbstractImages(abc.ABC):
    """How fields are drawn."""

    @abc.abstractmethod
    def at(self, x: Float[np.ndarray, "m d"] | None) -> Images:
        """At these rows, or at the training rows."""


def images_of(sites: Sites, x_train: Float[np.ndarray, "n d"], seed: int) -> AbstractImages:
    """Exact for up to 4,096 training rows; for more, by a random network of width 2,048, whose
    kernels are off by order width^-1/2 in a direction that its seed decides."""
    return Factored(sites, x_train)


class Factored(AbstractImages):
    """Kernels of the training rows, factored in float64 with the smallest jitter that works."""

    def __init__(self, sites: Sites, x_train: Float[np.ndarray, "n d"]):
        self._sites, self._x = sites, x_train
        found = laws(sites, x_train)
        # the first layer's fields are drawn by its weights, the last one's slopes are the readout's
        self._forward = [cholesky(one) for one in found.forward[1:]]
        self._backward = [cholesky(one) for one in found.backward[:-1]]

    def at(self, x: Float[np.ndarray, "m d"] | None) -> Images:
        first, last = self._sites.hidden[0], self._sites.readout.weight
        rows = self._x if x is None else x
        inputs, ends = _by_weights(rows.T, first.weight, first.bias), _constant(last, len(rows))
        if x is None:
            forward, backward = (
                [_image(factor.lower.T) for factor in factors]
                for factors in (self._forward, self._backward)
            )
        else:
            cross, own = laws(self._sites, self._x, x), own_laws(self._sites, x)
            forward, backward = (
                [_given(*three) for three in zip(factors, across, alone, strict=True)]
                for factors, across, alone in (
                    (self._forward, cross.forward[1:], own.forward[1:]),
                    (self._backward, cross.backward[:-1], own.backward[:-1]),
                )
            )
        return Images((inputs, *forward), (*backward, ends))


def _given(factor, cross: Float[np.ndarray, "n m"], own: Float[np.ndarray, " m"]) -> Image:
    matrix = factor.half(cross)
    left = own - np.sum(matrix**2, axis=0)
    return _image(matrix)._replace(spread=np.sqrt(np.maximum(left, 0.0)).astype(np.float32))


def _image(matrix: Float[np.ndarray, "r m"]) -> Image:
    return Image(matrix.astype(np.float32), np.zeros(matrix.shape[1], np.float32))


def _by_weights(features: Float[np.ndarray, "r m"], weight: Tensor, bias: Tensor) -> Image:
    """A field drawn through a layer's weights and bias."""
    rows = [weight.gain * weight.std * features, np.full((1, features.shape[1]), bias.gain * bias.std)]
    return _image(np.concatenate(rows))


def _constant(readout: Tensor, rows: int) -> Image:
    return _image(np.full((1, rows), readout.gain * readout.std))
