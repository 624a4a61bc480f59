"""The three Gaussian expectations that a pi-limit needs of a nonlinearity.

A layer reads its input g through features f(Z.g), Z standard Gaussian. Rows B_m of the layer and
inputs g meet in V00 = E f(Z.B) f(Z.g), and its derivatives: V11 = E f'(Z.B) f'(Z.g) in the product
B.g, and V02 = E f(Z.B) f''(Z.g), twice the derivative in |g|^2 (Price's theorem).
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.nonlinear import Relu
from widthwise.network.pointwise import AbstractNonlinearity

# arccos(x) = sqrt(1 - x) p(x) for 0 <= x <= 1, to 2e-8: Abramowitz & Stegun, eq. (4.4.46)
ARCCOS = (
    1.5707963050, -0.2145988016, 0.0889789874, -0.0501743046,
    0.0308918810, -0.0170881256, 0.0066700901, -0.0012624911,
)  # fmt: skip


class AbstractPairs(eqx.Module):
    """What layers do with the product of a row and an input; entries in, entries out."""

    source: ClassVar[str]

    @abc.abstractmethod
    def stored(self, g: Float[Array, "n r"]) -> tuple[Float[Array, "n r"], Float[Array, " n"]]:
        """(B, factor): the row kept for an input g, and what its coefficient is multiplied by."""

    @abc.abstractmethod
    def value(
        self, product: Float[Array, "n m"], rows: Float[Array, " m"], inputs: Float[Array, " n"]
    ) -> Float[Array, "n m"]:
        """V00 of products B.g, squared row lengths and squared input lengths."""

    @abc.abstractmethod
    def slopes(
        self, product: Float[Array, "n m"], rows: Float[Array, " m"], inputs: Float[Array, " n"]
    ) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
        """(V11, V02)."""


class ReluPairs(AbstractPairs):
    """ReLU, which is homogeneous: rows have length 1 and their coefficients carry the length."""

    source: ClassVar[str] = "cho2009, eqs. (5) and (6); yang2022pi, section 4"

    def stored(self, g):
        size = jnp.sqrt(jnp.sum(g * g, axis=1))
        return g / _over_zero(size)[:, None], size

    def value(self, product, rows, inputs):
        size = jnp.sqrt(inputs)[:, None]
        cosine, sine, angle = _angle(product / _over_zero(size))
        return size * (sine + (jnp.pi - angle) * cosine) / (2 * jnp.pi)

    def slopes(self, product, rows, inputs):
        size = _over_zero(jnp.sqrt(inputs))[:, None]
        _, sine, angle = _angle(product / size)
        return (jnp.pi - angle) / (2 * jnp.pi), sine / (2 * jnp.pi * size)


class LinearPairs(AbstractPairs):
    """No nonlinearity."""

    source: ClassVar[str] = "yang2022pi, section 4"

    def stored(self, g):
        return g, jnp.ones(len(g), g.dtype)

    def value(self, product, rows, inputs):
        return product

    def slopes(self, product, rows, inputs):
        return jnp.ones_like(product), jnp.zeros_like(product)


class DualPairs(AbstractPairs):
    """Any other nonlinearity, through its dual: a closed form, or a quadrature with its error."""

    source: ClassVar[str] = "yang2022pi, section 4; price1958, eq. (2)"
    nonlinearity: AbstractNonlinearity

    def stored(self, g):
        return g, jnp.ones(len(g), g.dtype)

    def value(self, product, rows, inputs):
        return _over_pairs(self.nonlinearity.dual)(rows, product, inputs)

    def slopes(self, product, rows, inputs):
        bend = jax.grad(self.nonlinearity.dual, argnums=2)
        return (
            _over_pairs(self.nonlinearity.slope)(rows, product, inputs),
            _over_pairs(lambda a, c, b: 2 * bend(a, c, b))(rows, product, inputs),
        )


def pairs_of(nonlinearity: AbstractNonlinearity | None) -> AbstractPairs:
    """The expectations of a nonlinearity, the fast way where there is one."""
    if nonlinearity is None:
        return LinearPairs()
    return ReluPairs() if isinstance(nonlinearity, Relu) else DualPairs(nonlinearity)


def _over_pairs(rule) -> Callable[..., Any]:
    return jax.vmap(jax.vmap(rule, (0, 0, None)), (None, 0, 0))


def _over_zero(size):
    """Lengths to divide by: an input of zeros has a cosine of 0 with everything."""
    return jnp.where(size > 0, size, 1.0)


def _angle(cosine):
    """(cosine, sine, angle), the cosine drawn into [-1, 1]."""
    cosine = jnp.clip(cosine, -1.0, 1.0)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    if cosine.dtype != np.float32:
        return cosine, sine, jnp.arccos(cosine)
    # XLA's own arccosine takes 14 ns an entry on a CPU, this 1
    size, polynomial = jnp.abs(cosine), jnp.zeros_like(cosine)
    for coefficient in reversed(ARCCOS):
        polynomial = polynomial * size + coefficient
    acute = jnp.sqrt(1 - size) * polynomial
    return cosine, sine, jnp.where(cosine < 0, jnp.pi - acute, acute)
