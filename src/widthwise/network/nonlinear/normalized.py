"""A function of features over their size."""

import math
from typing import ClassVar

import jax.numpy as jnp

from widthwise import settings
from widthwise.network.pointwise import AbstractDual


class ExpNormalized(AbstractDual):
    """size * exp(sqrt(gamma) * h / size + gamma * (shift - 1) / 2), where size^2 is the mean of
    h^2 over the features: its dual is sqrt(ab) * exp(gamma * (cosine + shift)).

    >>> float(ExpNormalized().dual(4.0, 4.0, 4.0))
    4.0

    This is the normalised Gaussian kernel. No function of one number has this dual at every
    variance (it would have to be a multiple of h on either side of 0), but at unit variance the
    exponential does, and the size of many features is their standard deviation. What moves
    all features at once through the size vanishes from the tangent kernel as they grow in number.

    Args:
        gamma: how fast inputs become unlike with their angle, over 0.
        shift: -1 keeps the size of the features.
    """

    source: ClassVar[str] = "shankar2020, page 6; daniely2016, Table 1"
    gamma: float = 1.0
    shift: float = -1.0

    def __check_init__(self):
        settings.number(self, "gamma", above=0)
        settings.number(self, "shift")

    def apply(self, weights, x):
        size = _root(jnp.mean(x * x, axis=-1, keepdims=True))
        unit = x / jnp.where(size > 0, size, 1.0)
        return size * jnp.exp(math.sqrt(self.gamma) * unit + self.gamma * (self.shift - 1) / 2)

    def dual(self, a, c, b):
        return _root(a * b) * jnp.exp(self.gamma * (_cosine(a, c, b) + self.shift))

    def mean(self, a):
        return _root(a) * jnp.exp(self.gamma * self.shift / 2)

    def slope(self, a, c, b):
        return self.gamma * jnp.exp(self.gamma * (_cosine(a, c, b) + self.shift))


def _root(square):
    """The square root, with derivative 0 instead of infinity at 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _cosine(a, c, b):
    """Of the angle between u and v; 0, with derivative 0, where one of them is 0."""
    size = _root(a * b)
    return jnp.where(size > 0, c, 0.0) / jnp.where(size > 0, size, 1.0)
