"""All pointwise nonlinearities, one class each. To add one, touch this file only."""

import importlib
import math
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from widthwise import settings
from widthwise.network.arccos import angle as _angle
from widthwise.network.arccos import rectified as _rectified
from widthwise.network.pointwise import AbstractNonlinearity, AbstractQuadrature, AbstractSmooth


class LeakyRelu(AbstractNonlinearity):
    """max(h, 0) + leak * min(h, 0).

    >>> LeakyRelu(0.1)(jnp.array([-1.0, 2.0])).tolist()
    [-0.10000000149011612, 2.0]
    """

    source: ClassVar[str] = "cho2009, eqs. (5) and (6), n = 0 and 1"
    leak: float = 0.01

    def __check_init__(self):
        settings.number(self, "leak")

    def __call__(self, h):
        return jnp.where(h > 0, h, self.leak * h)

    def dual(self, a, c, b):
        # leak * identity + (1 - leak) * Relu, and E[u Relu(v)] = c / 2
        s = self.leak
        return s * c + (1 - s) ** 2 * _rectified(a, c, b)

    def slope(self, a, c, b):
        s = self.leak
        return s + (1 - s) ** 2 * (jnp.pi - _angle(a, c, b)[1]) / (2 * jnp.pi)


class Relu(AbstractNonlinearity):
    """max(h, 0)."""

    source: ClassVar[str] = "cho2009, eqs. (5) and (6), n = 0 and 1"

    def __call__(self, h):
        return jnp.where(h > 0, h, 0.0)

    def dual(self, a, c, b):
        return _rectified(a, c, b)

    def slope(self, a, c, b):
        return (jnp.pi - _angle(a, c, b)[1]) / (2 * jnp.pi)


class Abs(AbstractNonlinearity):
    """|h|."""

    source: ClassVar[str] = "cho2009, eqs. (5) and (6), n = 0 and 1"

    def __call__(self, h):
        return jnp.where(h > 0, h, -h)

    def dual(self, a, c, b):
        return 4 * _rectified(a, c, b) - c  # |h| = 2 Relu(h) - h

    def slope(self, a, c, b):
        return 1 - 2 * _angle(a, c, b)[1] / jnp.pi


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
        square = 2 * self.b**2
        cosine = square * c / jnp.sqrt((1 + square * a) * (1 + square * b))
        return self.a**2 * 2 / jnp.pi * jnp.arcsin(cosine) + self.c**2


class Gelu(AbstractSmooth):
    """h * Phi(h), with Phi the normal distribution function (no tanh approximation).

    The dual follows from Stein's lemma, used twice on h * Phi(h).
    """

    source: ClassVar[str] = "tsuchida2021, Proposition 4"

    def __call__(self, h):
        return h * (1 + erf(h / math.sqrt(2))) / 2

    def dual(self, a, c, b):
        both = 1 / 4 + jnp.arcsin(c / jnp.sqrt((1 + a) * (1 + b))) / (2 * jnp.pi)
        density = 1 / (2 * jnp.pi * jnp.sqrt((1 + a) * (1 + b) - c**2))
        return c * both + density * (a * b - c**2 * a / (1 + a) + c**2 / (1 + b))


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


class Tanh(AbstractQuadrature):
    """tanh(h), by quadrature."""

    source: ClassVar[str] = "daniely2016, section 4 (Hermite expansion of a dual)"
    degree: int = eqx.field(default=160, static=True)
    kinks: tuple[float, ...] = eqx.field(default=(), static=True)

    def __call__(self, h):
        return jnp.tanh(h)


class Sigmoid(AbstractQuadrature):
    """1 / (1 + exp(-h)), by quadrature."""

    source: ClassVar[str] = "daniely2016, section 4 (Hermite expansion of a dual)"
    degree: int = eqx.field(default=160, static=True)
    kinks: tuple[float, ...] = eqx.field(default=(), static=True)

    def __call__(self, h):
        return jax.nn.sigmoid(h)


class Swish(AbstractQuadrature):
    """h / (1 + exp(-h)), by quadrature."""

    source: ClassVar[str] = "daniely2016, section 4 (Hermite expansion of a dual)"
    degree: int = eqx.field(default=160, static=True)
    kinks: tuple[float, ...] = eqx.field(default=(), static=True)

    def __call__(self, h):
        return h * jax.nn.sigmoid(h)


def _by_name(fn: Any) -> Any:
    """(module, name) of a function that is found there: what jax.jit wraps pickles so only."""
    where = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    return where if getattr(sys.modules.get(str(where[0])), str(where[1]), None) is fn else fn


def _elementwise(fn: Any, kinks: tuple, degree: int) -> "Elementwise":
    if isinstance(fn, tuple):
        fn = getattr(importlib.import_module(fn[0]), fn[1])
    return Elementwise(fn=fn, kinks=kinks, degree=degree)


def _floats(kinks) -> tuple[float, ...]:
    return tuple(float(kink) for kink in kinks)


class Elementwise(AbstractQuadrature):
    """Any function of one number, by quadrature.

    >>> Dense() >> Elementwise(jax.nn.elu, kinks=(0.0,)) >> Readout()
    Dense() >> Elementwise(fn=elu, kinks=(0.0,)) >> Readout()

    Args:
        fn: a JAX function that acts entry by entry and can be differentiated.
        kinks: where `fn` or its derivative jumps; integrals are split there.
        degree: terms of the Hermite series; `error` states what is left out.
    """

    source: ClassVar[str] = "daniely2016, section 4 (Hermite expansion of a dual)"
    fn: Callable = eqx.field(default=jax.nn.softplus, static=True)
    kinks: tuple[float, ...] = eqx.field(default=(), static=True, converter=_floats)
    degree: int = eqx.field(default=160, static=True)

    def __check_init__(self):
        if not callable(self.fn):
            raise TypeError(f"fn of Elementwise is {self.fn!r}: give a function of an array.")
        settings.whole(self, "degree")

    def __call__(self, h):
        return self.fn(h)

    def __reduce__(self):
        return _elementwise, (_by_name(self.fn), self.kinks, self.degree)
