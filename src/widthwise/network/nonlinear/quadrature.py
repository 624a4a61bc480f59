"""Functions without a closed form, by quadrature, and any function of the user's."""

import importlib
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.pointwise import AbstractQuadrature


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
