"""One layer of a pi-limit: F(g) = sum_m w_m A_m V00(B_m, g), its rows kept in blocks.

Blocks have one of a few capacities, so that few compiled shapes serve a layer that grows. Rows not
yet used have weight zero and contribute nothing. A step appends rows and scales weights; A and B of
a row never change.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.limits.pi import compiled
from widthwise.limits.pi.pairs import AbstractPairs, ReluPairs

SMALLEST, CAPACITY = 64, 2048  # rows of a block; 2048 are 3 MB at r = 400, which stays in cache


class Rows(NamedTuple):
    """A block: A and B as stored, weights w and their velocities v in the type of computation."""

    a: Float[Array | np.ndarray, "c k"]
    b: Float[Array | np.ndarray, "c r"]
    w: Float[Array | np.ndarray, " c"]
    v: Float[Array | np.ndarray, " c"]


class Operator(NamedTuple):
    """A layer's rows; `used` counts those of the last block, the others are full or closed."""

    blocks: tuple[Rows, ...]
    used: int

    @property
    def dtype(self) -> np.dtype:
        """Of the computation; A and B may be stored in fewer bits."""
        return np.dtype(self.blocks[0].w.dtype)


def operator_of(a, b, w, v, storage: str) -> Operator:
    """An operator of these rows; w and v say in which type it computes."""
    count, size = len(a), capacity(len(a))
    blocks = []
    for start in range(0, max(count, 1), size):
        own = slice(start, min(start + size, count))
        empty = size - (own.stop - start)

        def block(x, dtype, own=own, empty=empty):
            pad = ((0, empty),) + ((0, 0),) * (np.ndim(x) - 1)
            return jnp.asarray(np.pad(np.asarray(x)[own], pad), dtype)

        w_dtype = np.asarray(w).dtype
        blocks.append(
            Rows(block(a, storage), block(b, storage), block(w, w_dtype), block(v, w_dtype))
        )
    return Operator(tuple(blocks), count - size * (len(blocks) - 1))


def capacity(count: int) -> int:
    """Rows of the next block of a layer that has so many: as many again, within bounds."""
    return min(CAPACITY, max(SMALLEST, 1 << max(count - 1, 0).bit_length()))


def gathered(operator: Operator) -> Rows:
    """All rows of non-zero weight or velocity, as NumPy arrays."""
    blocks = [tuple(map(np.asarray, block)) for block in operator.blocks]
    kept = [(w != 0) | (v != 0) for _, _, w, v in blocks]
    parts = zip(
        *([x[k] for x in block] for block, k in zip(blocks, kept, strict=True)), strict=True
    )
    return Rows(*(np.concatenate(part) for part in parts))


def count(operator: Operator) -> int:
    """Rows that the operator's memory holds, those of closed blocks' ends included."""
    return sum(len(block.w) for block in operator.blocks[:-1]) + operator.used


def apply(
    pairs: AbstractPairs, operator: Operator, g: Float[Array, "n r"]
) -> tuple[Float[Array, "n k"], list[Any]]:
    """(F(g), the products with the rows, which the way back reads again)."""
    if _compiled(pairs, operator, g):
        return compiled.apply(operator.blocks, operator.used, g)
    out, products = jnp.zeros((len(g), operator.blocks[0].a.shape[1]), g.dtype), []
    for block in operator.blocks:
        out, product = _apply(pairs, block, g, out)
        products.append(product)
    return out, products


def pull_back(
    pairs: AbstractPairs, operator: Operator, g: Float[Array, "n r"], products, d_out
) -> Float[Array, "n r"]:
    """The gradient in g of sum(d_out F(g)), which is the projected gradient of the features."""
    if _compiled(pairs, operator, g):
        return compiled.pull_back(operator.blocks, operator.used, g, products, d_out)
    found = jnp.zeros_like(g)
    for block, product in zip(operator.blocks, products, strict=True):
        found = _pull_back(pairs, block, g, product, d_out, found)
    return found


def _compiled(pairs: AbstractPairs, operator: Operator, g) -> bool:
    return isinstance(pairs, ReluPairs) and compiled.serves(operator.blocks[0].b, g)


def append(operator: Operator, a, b, w, v) -> Operator:
    """The operator with new rows, all of one weight w and velocity v."""
    new, blocks, used = len(a), list(operator.blocks), operator.used
    if used + new <= len(blocks[-1].w):
        blocks[-1] = _write(blocks[-1], a, b, w, v, used)
        return Operator(tuple(blocks), used + new)
    had, start = count(operator), -used  # of the new rows, the first that the block could take
    while True:
        blocks[-1] = _scatter(blocks[-1], a, b, w, v, -start)
        size = len(blocks[-1].w)
        if start + size >= new:
            return Operator(tuple(blocks), new - start)
        start += size
        fresh = capacity(had + start)
        blocks.append(Rows(*(jnp.zeros((fresh, *x.shape[1:]), x.dtype) for x in blocks[-1])))


def stepped(operator: Operator, lr, momentum, decay) -> Operator:
    """Weights a step on: v <- momentum v, then w <- (1 - decay) w - lr v."""
    blocks = tuple(
        Rows(x.a, x.b, *_stepped(x.w, x.v, lr, momentum, decay)) for x in operator.blocks
    )
    return Operator(blocks, operator.used)


@functools.partial(jax.jit, static_argnums=0)
def _apply(pairs, block, g, out):
    b, a = block.b.astype(g.dtype), block.a.astype(g.dtype)
    product = g @ b.T
    value = pairs.value(product, jnp.sum(b * b, axis=1), jnp.sum(g * g, axis=1))
    return out + (value * block.w) @ a, product


@functools.partial(jax.jit, static_argnums=0)
def _pull_back(pairs, block, g, product, d_out, found):
    b, a = block.b.astype(g.dtype), block.a.astype(g.dtype)
    v11, v02 = pairs.slopes(product, jnp.sum(b * b, axis=1), jnp.sum(g * g, axis=1))
    weight = (d_out @ a.T) * block.w
    return found + (weight * v11) @ b + jnp.sum(weight * v02, axis=1)[:, None] * g


@functools.partial(jax.jit, donate_argnums=0)
def _write(block, a, b, w, v, used):
    def put(old, new):
        start = (used,) + (0,) * (old.ndim - 1)
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), start)

    weights, speeds = (jnp.full(len(a), x, block.w.dtype) for x in (w, v))
    return Rows(put(block.a, a), put(block.b, b), put(block.w, weights), put(block.v, speeds))


@functools.partial(jax.jit, donate_argnums=0)
def _scatter(block, a, b, w, v, used):
    """As `_write`, where only some of the rows fit: `used` below 0 skips the first ones."""
    at = used + jnp.arange(len(a))
    at = jnp.where(at < 0, len(block.w), at)  # out of bounds, so dropped

    def put(old, new):
        return old.at[at].set(jnp.asarray(new, old.dtype), mode="drop")

    return Rows(put(block.a, a), put(block.b, b), put(block.w, w), put(block.v, v))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _stepped(w, v, lr, momentum, decay):
    v = momentum * v
    return (1 - decay) * w - lr * v, v
