"""The plain ways: Jacobians contracted, and products of the kernel with vectors."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from widthwise.finite.empirical.way import EXACT, AbstractWay

PAIRS = {"all": "nkp,mlp->nmkl", "each": "nkp,mkp->nmk", "mean": "nkp,mkp->nm"}


@dataclasses.dataclass(frozen=True)
class Contraction(AbstractWay):
    """Holds a block's Jacobian, tensor by tensor, and multiplies two of them."""

    source: ClassVar[str] = "novak2022, section 3"

    def features(self, weights, rest, x):
        def one(row):
            return jax.jacrev(lambda w: self.function.one(w, rest, row))(weights)

        return [j.reshape(*j.shape[:2], -1) for j in jax.vmap(one)(x)]

    def tile(self, weights, rest, rates, left, right):
        # Tensor by tensor: the Jacobians are never laid side by side.
        return sum(
            contracted(weighed(a, weight, rate), b, self.outputs)
            for a, b, weight, rate in zip(left, right, weights, rates, strict=True)
        )


def weighed(jacobian, weight, rate):
    """(n, k, parameters) times the step size of each parameter; of one factor only, so that no
    root is taken."""
    rate = jnp.broadcast_to(jnp.asarray(rate, jacobian.dtype), weight.shape).ravel()
    return jacobian * rate


def contracted(left, right, outputs):
    """The kernel of two Jacobians."""
    found = jnp.einsum(PAIRS[outputs], left, right, precision=EXACT)
    return found / left.shape[1] if outputs == "mean" else found


@dataclasses.dataclass(frozen=True)
class Products(AbstractWay):
    """Holds nothing: pulls one row's outputs back to the parameters and pushes them through all
    rows of the other block."""

    source: ClassVar[str] = "novak2022, section 3"

    def features(self, weights, rest, x):
        return x

    def tile(self, weights, rest, rates, left, right):
        def forward(x):
            return lambda w: jax.vmap(lambda row: self.function.one(w, rest, row))(x)

        primal, push = jax.linearize(forward(left), weights)

        def column(row):
            _, pull = jax.vjp(lambda w: self.function.one(w, rest, row), weights)
            (found,) = jax.vmap(pull)(jnp.eye(primal.shape[1], dtype=primal.dtype))
            steps = [g * jnp.asarray(rate, g.dtype) for g, rate in zip(found, rates, strict=True)]
            return _picked(jax.vmap(push, out_axes=2)(steps), self.outputs)

        # One row at a time: what is held is one Jacobian row, however large the block.
        return jnp.moveaxis(jax.lax.map(column, right), 0, 1)


def _picked(pairs, outputs):
    """Of (n, k, k): every push gives all outputs, wanted or not."""
    if outputs == "all":
        return pairs
    each = jnp.diagonal(pairs, axis1=1, axis2=2)
    return each if outputs == "each" else each.mean(axis=1)
