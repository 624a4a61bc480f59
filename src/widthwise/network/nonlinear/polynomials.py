"""Polynomials, exact at every variance: their Hermite series end.

With He_k[a] the k-th Hermite polynomial of a variable of variance a (its leading coefficient 1),
`E[He_k[a](u) He_l[b](v)]` is k! c^k where k = l, else 0. So a polynomial needs its coefficients in
He_k[a], which are polynomials in a, and nothing is divided.
"""

import math
from collections.abc import Iterable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.pointwise import AbstractSmooth


class Monomial(AbstractSmooth):
    """h ** degree.

    >>> Monomial(3)(jnp.array([-2.0])).tolist()
    [-8.0]
    """

    source: ClassVar[str] = "daniely2016, section 4 (Hermite expansion of a dual)"
    degree: int = eqx.field(default=2, static=True)

    def __check_init__(self):
        settings.whole(self, "degree", low=0)

    def __call__(self, h):
        return h**self.degree

    def dual(self, a, c, b):
        return _shifted(self.degree, a * b, c)


class Hermite(AbstractSmooth):
    """He_degree(h) / sqrt(degree!), the Hermite polynomial that has E[f(u)^2] = 1 at variance 1.

    >>> [float(Hermite(3).dual(1.0, c, 1.0)) for c in (0.5, 1.0)]
    [0.125, 1.0]

    At unit variances its dual is c ** degree; at others, lower powers join it.
    """

    source: ClassVar[str] = "daniely2016, section 4 (Hermite expansion of a dual)"
    degree: int = eqx.field(default=2, static=True)

    def __check_init__(self):
        settings.whole(self, "degree", low=0)

    def __call__(self, h):
        before, now = jnp.zeros_like(h), jnp.ones_like(h)
        for j in range(self.degree):
            before, now = now, (h * now - math.sqrt(j) * before) / math.sqrt(j + 1)
        return now

    def dual(self, a, c, b):
        return _shifted(self.degree, (a - 1) * (b - 1), c) / math.factorial(self.degree)


def _shifted(n: int, product, c):
    """E[He_n[s](u) He_n[t](v)] where (a - s) (b - t) is `product`: monomials are He_n[0].

    He_n[s] is the sum of n! / (2^m m! k!) (a - s)^m He_k[a] over k + 2m = n.
    """
    total = 0.0
    for m in range(n // 2 + 1):
        k = n - 2 * m
        factor = _heat(n, m) ** 2 * math.factorial(k)
        total = total + float(factor) * product**m * c**k
    return total


def _heat(n: int, m: int) -> int:
    """n! / (2^m m! (n - 2m)!), the ways to draw m pairs from n."""
    return math.factorial(n) // (2**m * math.factorial(m) * math.factorial(n - 2 * m))


def _numbers(values):
    """Numbers as floats, so that equal coefficients print alike; the rest is refused later."""
    if not isinstance(values, Iterable):
        return values
    return tuple(float(x) if settings.is_number(x) else x for x in values)


class Polynomial(AbstractSmooth):
    """coefficients[0] + coefficients[1] * h + coefficients[2] * h^2 + ...

    >>> Polynomial((1.0, 0.0, 2.0))(jnp.array([3.0])).tolist()
    [19.0]

    Args:
        coefficients: of rising powers, the constant first.
    """

    source: ClassVar[str] = "daniely2016, section 4 (Hermite expansion of a dual)"
    coefficients: tuple[float, ...] = eqx.field(default=(0.0, 1.0, 0.5), converter=_numbers)

    def __check_init__(self):
        found = self.coefficients
        if not (isinstance(found, tuple) and found and all(map(settings.is_number, found))):
            raise TypeError(
                f"coefficients of Polynomial is {found!r}: give a tuple of finite numbers, the "
                "constant first."
            )

    def __call__(self, h):
        total = jnp.zeros_like(h)
        for coefficient in reversed(self.coefficients):
            total = total * h + coefficient
        return total

    def dual(self, a, c, b):
        total = 0.0 * c
        for k in reversed(range(len(self.coefficients))):
            total = self._part(k, a) * self._part(k, b) + (k + 1) * c * total
        return total

    def _part(self, k: int, a):
        """The coefficient of He_k[a]."""
        total = 0.0 * a
        for m in reversed(range((len(self.coefficients) - k + 1) // 2)):
            total = total * a + self.coefficients[k + 2 * m] * float(_heat(k + 2 * m, m))
        return total
