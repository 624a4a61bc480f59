"""Gaussian fields as standard normal numbers times a matrix, at training and at new rows.

A field of covariance K at the training rows is z L', K = L L'. At a new row it is its mean given
the training rows, which is linear in z, and noise of what variance is left. Only a row's own law
together with the training rows enters a prediction: the noise may be the same number at all rows.
"""

import abc
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.laws import Laws, laws, own_laws
from widthwise.limits.adam.sites import Sites, Tensor
from widthwise.solve import cholesky
from widthwise.solve.linear import Factor


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

    @abc.abstractmethod
    def laws(self, x: Float[np.ndarray, "m d"] | None) -> Laws | None:
        """Between these rows and the training rows, or among the training rows; None where there
        are too many for matrices of all pairs."""


@final
class Factored(AbstractImages):
    """Kernels of the training rows, factored in float64 with the smallest jitter that works."""

    def __init__(self, sites: Sites, x_train: Float[np.ndarray, "n d"]):
        self._sites, self._x = sites, x_train
        found = laws(sites, x_train)
        # the first layer's fields are drawn by its weights, the last one's slopes are the readout's
        self._forward = [cholesky(one) for one in found.forward[1:]]
        self._backward = [cholesky(one) for one in found.backward[:-1]]

    def laws(self, x: Float[np.ndarray, "m d"] | None) -> Laws:
        return laws(self._sites, self._x) if x is None else laws(self._sites, x, self._x)

    def at(self, x: Float[np.ndarray, "m d"] | None) -> Images:
        first, last = self._sites.hidden[0], self._sites.readout.weight
        rows = self._x if x is None else x
        inputs, ends = by_weights(rows.T, first.weight, first.bias), by_readout(last, len(rows))
        if x is None:
            forward, backward = (
                [image(factor.lower.T) for factor in factors]
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


def _given(factor: Factor, cross: Float[np.ndarray, "n m"], own: Float[np.ndarray, " m"]) -> Image:
    """A field at new rows, given its values at those that were factored."""
    matrix = factor.half(cross)
    left = own - np.sum(matrix**2, axis=0)
    return image(matrix)._replace(spread=np.sqrt(np.maximum(left, 0.0)).astype(np.float32))


def image(matrix: Float[np.ndarray, "r m"]) -> Image:
    """Without noise."""
    return Image(matrix.astype(np.float32), np.zeros(matrix.shape[1], np.float32))


def by_weights(features: Float[np.ndarray, "r m"], weight: Tensor, bias: Tensor) -> Image:
    """A field drawn through a layer's weights and bias, from the features that they read."""
    ones = np.ones((1, features.shape[1]))
    return image(np.concatenate([weight.gain * weight.std * features, bias.gain * bias.std * ones]))


def by_readout(weight: Tensor, rows: int) -> Image:
    """The outputs' slopes in the last features: the readout's own weights, at all rows."""
    return image(np.full((1, rows), weight.gain * weight.std))
