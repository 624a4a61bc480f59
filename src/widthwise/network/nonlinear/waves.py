"""Functions that oscillate."""

import math
from typing import ClassVar

import jax.numpy as jnp

from widthwise import settings
from widthwise.network.pointwise import AbstractSmooth


class Sin(AbstractSmooth):
    """a * sin(b * h + c).

    Args:
        a, b, c: amplitude, frequency, phase.
    """

    source: ClassVar[str] = "rahimi2007, section 3; louart2018, Table 1"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __check_init__(self):
        for name in "abc":
            settings.number(self, name)

    def __call__(self, h):
        return self.a * jnp.sin(self.b * h + self.c)

    def dual(self, a, c, b):
        return _wave(self.a, self.b, self.c, a, c, b, sign=-1.0)


class Cos(AbstractSmooth):
    """a * cos(b * h + c). Arguments as for `Sin`."""

    source: ClassVar[str] = "rahimi2007, section 3; louart2018, Table 1"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __check_init__(self):
        for name in "abc":
            settings.number(self, name)

    def __call__(self, h):
        return self.a * jnp.cos(self.b * h + self.c)

    def dual(self, a, c, b):
        return _wave(self.a, self.b, self.c, a, c, b, sign=1.0)


def _wave(amplitude, frequency, phase, a, c, b, sign):
    # cos p cos q and sin p sin q are (cos(p - q) +- cos(p + q)) / 2, and E cos(N(0, s)) = e^-s/2
    apart = jnp.exp(-(frequency**2) * (a + b - 2 * c) / 2)
    together = jnp.exp(-(frequency**2) * (a + b + 2 * c) / 2) * math.cos(2 * phase)
    return amplitude**2 * (apart + sign * together) / 2


class Rbf(AbstractSmooth):
    """sqrt(2) * sin(sqrt(2 gamma) * h + pi / 4): its kernel is exp(-gamma |x - y|^2)."""

    source: ClassVar[str] = "rahimi2007, section 3"
    gamma: float = 1.0

    def __check_init__(self):
        settings.number(self, "gamma", above=0)

    def __call__(self, h):
        return math.sqrt(2) * jnp.sin(math.sqrt(2 * self.gamma) * h + math.pi / 4)

    def dual(self, a, c, b):
        return jnp.exp(-self.gamma * (a + b - 2 * c))


class Gabor(AbstractSmooth):
    """exp(-h^2) * sin(h): a wave under a bump.

    >>> Gabor()(jnp.array([0.0])).tolist()
    [0.0]

    The bumps of u and v times their density are the density of another Gaussian pair, of
    covariance S (1 + 2 S)^-1 where S is theirs, so that the dual of `Sin` remains.
    """

    source: ClassVar[str] = "liao2018, Table 1 (sine, Gaussian)"

    def __call__(self, h):
        return jnp.exp(-h * h) * jnp.sin(h)

    def dual(self, a, c, b):
        left = a * b - c * c
        determinant = 1 + 2 * (a + b) + 4 * left
        both = (a + b + 4 * left) / determinant
        return jnp.exp(-both / 2) * jnp.sinh(c / determinant) / jnp.sqrt(determinant)
