"""Smooth functions with a closed form: error functions and exponentials."""

import math
from numbers import Real
from typing import ClassVar

import jax.numpy as jnp
from jax.scipy.special import erf

from widthwise import settings
from widthwise.network.arccos import arcsine
from widthwise.network.pointwise import AbstractSmooth

_SIGMOID = 2.4020563531719796  # least squares over [-5, 5]


class Erf(AbstractSmooth):
    """a * erf(b * h) + c.

    Args:
        a, b, c: outer factor, inner factor, offset.
    """

    source: ClassVar[str] = "williams1997, eq. (11)"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __check_init__(self):
        for name in "abc":
            settings.number(self, name)

    def __call__(self, h):
        return self.a * erf(self.b * h) + self.c

    def dual(self, a, c, b):
        return self.a**2 * _arcsine(self.b, a, c, b) + self.c**2


class SigmoidLike(AbstractSmooth):
    """1/2 + erf(h / 2.402...) / 2: of such functions the one nearest to the logistic sigmoid, in
    squares over [-5, 5], where the two differ by less than 0.02.

    >>> SigmoidLike()(jnp.array([0.0])).tolist()
    [0.5]

    `Sigmoid` is the logistic one itself, by quadrature; `Erf` has all three constants free.
    """

    source: ClassVar[str] = "williams1997, eq. (11)"

    def __call__(self, h):
        return (1 + erf(h / _SIGMOID)) / 2

    def dual(self, a, c, b):
        return (1 + _arcsine(1 / _SIGMOID, a, c, b)) / 4


def _arcsine(inner, a, c, b):
    """E[erf(inner * u) erf(inner * v)]."""
    square = 2 * inner**2
    cosine = square * c / jnp.sqrt((1 + square * a) * (1 + square * b))
    return 2 / jnp.pi * arcsine(cosine)


class Gelu(AbstractSmooth):
    """h * Phi(h), with Phi the normal distribution function (no tanh approximation).

    The dual follows from Stein's lemma, used twice on h * Phi(h).
    """

    source: ClassVar[str] = "tsuchida2021, Proposition 4"

    def __call__(self, h):
        return h * (1 + erf(h / math.sqrt(2))) / 2

    def dual(self, a, c, b):
        both = 1 / 4 + arcsine(c / jnp.sqrt((1 + a) * (1 + b))) / (2 * jnp.pi)
        density = 1 / (2 * jnp.pi * jnp.sqrt((1 + a) * (1 + b) - c**2))
        return c * both + density * (a * b - c**2 * a / (1 + a) + c**2 / (1 + b))


class Gaussian(AbstractSmooth):
    """a * exp(b * h^2).

    >>> Gaussian(2.0, -0.5)(jnp.array([0.0])).tolist()
    [2.0]

    Args:
        a, b: the height, and the curvature, which is at most 0: above it, expectations are
            infinite at some variances.
    """

    source: ClassVar[str] = "liao2018, Table 1"
    a: float = 1.0
    b: float = -1.0

    def __check_init__(self):
        for name in "ab":
            settings.number(self, name)
        if isinstance(self.b, Real) and self.b > 0:
            raise ValueError(
                f"b of Gaussian is {self.b}: give a number of at most 0, for E[exp(b h^2)] is "
                "infinite at variances from 1 / (2 b) on."
            )

    def __call__(self, h):
        return self.a * jnp.exp(self.b * h * h)

    def dual(self, a, c, b):
        s = -2 * self.b
        return self.a**2 / jnp.sqrt(1 + s * (a + b) + s**2 * (a * b - c * c))


class Exp(AbstractSmooth):
    """a * exp(b * h).

    >>> Exp()(jnp.array([0.0])).tolist()
    [1.0]

    Its dual grows exponentially with the variance, so that a second one behind it is finite only
    for small inputs: `ExpNormalized` has no such trouble.

    Args:
        a, b: outer factor, inner factor.
    """

    source: ClassVar[str] = "daniely2016, Table 1"
    a: float = 1.0
    b: float = 1.0

    def __check_init__(self):
        for name in "ab":
            settings.number(self, name)

    def __call__(self, h):
        return self.a * jnp.exp(self.b * h)

    def dual(self, a, c, b):
        return self.a**2 * jnp.exp(self.b**2 * (a + b + 2 * c) / 2)
