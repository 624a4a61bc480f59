"""ReLU rows on a CPU, in float32: one pass over a layer's rows, compiled by Numba.

A library's matrix product first copies both matrices into an order of its own, which costs a
fifth of the time where one of them is only a batch wide. Here a tile of rows is read once, where
it lies, and goes through the product, the expectations and the second product while it is in the
cache. At batch 64 that runs at the rate of a large product, at batch 8 at that of the memory.

Partial sums belong to groups of rows and are added in their order, so that the result is the
same, bit for bit, for any number of threads.
"""

import concurrent.futures
import functools
import itertools
from typing import NamedTuple, no_type_check

import jax.numpy as jnp
import numba
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from widthwise.limits.pi.pairs import ARCCOS

LANES = 16  # numbers of a vector: one register of AVX-512, two of AVX2, four of NEON
HALF = LANES // 2  # for batches that small
ROWS = 8  # of a register tile, one accumulating vector each
TILE = 64  # rows that go through both products together; blocks have a multiple of it
GROUP = 1024  # rows that share partial sums
SLAB = 64  # inputs at a time

Products = np.ndarray  # (m, p): B.g of all rows with a slab of inputs, in whole vectors

LINE = 64  # bytes that the memory hands over together
_FLOAT = 4  # bytes
_READ_TO_L2 = 0, 2, 1  # of llvm.prefetch: to be read, soon, data
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(c) for c in ARCCOS)
_ZERO, _ONE, _PI = np.float32(0), np.float32(1), np.float32(np.pi)
_SCALE = np.float32(1 / (2 * np.pi))


def serves(storage, g) -> bool:
    """Whether rows stored so, and these inputs, are float32 numbers on a CPU."""
    if isinstance(g, Tracer) or g.dtype != np.float32 or storage.dtype != np.float32:
        return False
    return isinstance(g, np.ndarray) or next(iter(g.devices())).platform == "cpu"


class _Group(NamedTuple):
    """Where rows lie in memory: addresses of A and B, and which rows they are."""

    a: np.uintp
    b: np.uintp
    rows: slice


class _Layout(NamedTuple):
    """A layer's rows in groups, and all their weights."""

    groups: list[_Group]
    weights: Float[np.ndarray, " m"]


def apply(blocks, used: int, g) -> tuple[Float[Array, "n k"], list[Products]]:
    """(F(g), products for the way back), as `rows.apply`."""
    g, layout = np.asarray(g), _layout(blocks, used)
    slabs = [_forth(layout, blocks[0].a.shape[1], g[i : i + SLAB]) for i in range(0, len(g), SLAB)]
    return jnp.asarray(np.concatenate([out for out, _ in slabs])), [seen for _, seen in slabs]


def pull_back(blocks, used: int, g, products: list[Products], d_out) -> Float[Array, "n r"]:
    """The gradient in g of sum(d_out F(g)), as `rows.pull_back`."""
    g, d_out, layout = np.asarray(g), np.asarray(d_out), _layout(blocks, used)
    slabs = [
        _back(layout, g[i : i + SLAB], seen, d_out[i : i + SLAB])
        for i, seen in zip(range(0, len(g), SLAB), products, strict=True)
    ]
    return jnp.asarray(np.concatenate(slabs))


def _forth(layout: _Layout, width: int, g) -> tuple[Float[np.ndarray, "n k"], Products]:
    columns = _columns(g)
    sizes = np.linalg.norm(columns, axis=0)
    seen = np.empty((len(layout.weights), columns.shape[1]), np.float32)
    parts = _parts(len(layout.groups), columns.shape[1], width)

    def one(number, group):
        weights = layout.weights[group.rows]
        _apply(number, group.a, group.b, weights, columns, sizes, seen[group.rows], parts, width)

    _in_threads(one, layout.groups)
    return parts.sum(axis=0)[: len(g), :width], seen


def _back(layout: _Layout, g, seen: Products, d_out) -> Float[np.ndarray, "n r"]:
    (n, rank), columns = g.shape, _columns(d_out)
    sizes = np.zeros(seen.shape[1], np.float32)
    sizes[:n] = np.linalg.norm(g, axis=1)
    parts = _parts(len(layout.groups), seen.shape[1], rank)
    along = np.zeros((len(layout.groups), seen.shape[1]), np.float32)

    def one(number, group):
        weights, own = layout.weights[group.rows], seen[group.rows]
        _pull_back(number, group.a, group.b, weights, columns, sizes, own, parts, along, rank)

    _in_threads(one, layout.groups)
    return parts.sum(axis=0)[:n, :rank] + along.sum(axis=0)[:n, None] * g


def _in_threads(one, groups) -> None:
    """Every group once, by whichever thread is free: a busy core takes fewer."""
    threads = min(numba.get_num_threads(), len(groups))
    numbers = itertools.count()

    def work(_):
        while (number := next(numbers)) < len(groups):
            one(number, groups[number])

    if threads == 1:
        work(0)
    else:
        for _ in _pool().map(work, range(threads)):
            pass


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(numba.get_num_threads())


def _parts(groups: int, inputs: int, width: int) -> Float[np.ndarray, "q n k"]:
    """Partial sums at zero, padded to whole tiles."""
    return np.zeros((groups, -(-inputs // ROWS) * ROWS, -(-width // LANES) * LANES), np.float32)


def _layout(blocks, used: int) -> _Layout:
    """Of all rows but the unused ones of the last block."""
    groups, first = [], 0
    for number, block in enumerate(blocks):
        rows, width, rank = len(block.w), block.a.shape[1], block.b.shape[1]
        if number == len(blocks) - 1:
            rows = min(rows, max(TILE, -(-used // TILE) * TILE))
        a, b = block.a.unsafe_buffer_pointer(), block.b.unsafe_buffer_pointer()
        for at in range(0, rows, GROUP):
            own = slice(first + at, first + min(at + GROUP, rows))
            groups.append(_Group(a + _FLOAT * at * width, b + _FLOAT * at * rank, own))
        first += rows
    return _Layout(groups, np.concatenate([np.asarray(block.w) for block in blocks])[:first])


def _columns(x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "k p"]:
    """The transpose, with zeros up to whole vectors, or to half of one."""
    lanes = LANES if len(x) > HALF else HALF
    found = np.zeros((x.shape[1], -(-len(x) // lanes) * lanes), np.float32)
    found[:, : len(x)] = x.T
    return found


@intrinsic(prefer_literal=True)
@no_type_check
def _add_product(
    typing, out, out_row, left, left_row, left_step, right, right_step, steps, ahead, lanes
):
    """out[i, :] += sum over steps s of left[i, s] right[s, :], for ROWS rows and one vector.

    All are addresses of float32 numbers, and strides counted in numbers. Sums stay in registers.
    Each step asks the memory for one more line from the address `ahead`, unless it is 0.
    """
    count = lanes.literal_value
    fetching = not isinstance(ahead, types.IntegerLiteral)

    def generate(context, builder, signature, arguments):
        out, out_row, left, left_row, left_step, right, right_step, steps, ahead, _ = arguments
        scalar, index, byte = ir.FloatType(), ir.IntType(32), ir.IntType(8)
        vector = ir.VectorType(scalar, count)
        add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{count}f32"
        )
        fetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte.as_pointer(), index, index, index]),
            "llvm.prefetch.p0",
        )
        undefined, zeros = ir.Constant(vector, ir.Undefined), [0] * count
        everywhere = ir.Constant(ir.VectorType(index, count), zeros)

        def pointer(base, row, stride, kind):
            bytes_past = builder.mul(builder.mul(row, stride), ir.Constant(row.type, _FLOAT))
            return builder.inttoptr(builder.add(base, bytes_past), kind.as_pointer())

        def load(pointer):
            found = builder.load(pointer)
            found.align = _FLOAT
            return found

        rows = [ir.Constant(out.type, row) for row in range(ROWS)]
        places = [pointer(out, row, out_row, vector) for row in rows]
        sums = [cgutils.alloca_once(builder, vector) for _ in rows]  # LLVM keeps them in registers
        for place, total in zip(places, sums, strict=True):
            builder.store(load(place), total)
        with cgutils.for_range(builder, steps) as loop:
            if fetching:
                place = pointer(ahead, loop.index, ir.Constant(out.type, LINE // _FLOAT), byte)
                builder.call(fetch, [place, *(ir.Constant(index, k) for k in _READ_TO_L2)])
            seen = load(pointer(right, loop.index, right_step, vector))
            start = builder.ptrtoint(pointer(left, loop.index, left_step, scalar), out.type)
            for row, total in zip(rows, sums, strict=True):
                one = load(pointer(start, row, left_row, scalar))
                one = builder.insert_element(undefined, one, ir.Constant(index, 0))
                one = builder.shuffle_vector(one, undefined, everywhere)
                builder.store(builder.call(add, [one, seen, builder.load(total)]), total)
        for at, total in zip(places, sums, strict=True):
            builder.store(builder.load(total), at).align = _FLOAT
        return context.get_dummy_value()

    given = (types.uintp, types.intp, types.uintp, types.intp, types.intp, types.uintp, types.intp)
    return types.void(*given, types.intp, ahead if not fetching else types.uintp, lanes), generate


@njit(nogil=True, cache=True)
@no_type_check
def _rows_times(rows, width, columns, out, others, other_width):
    """out = a tile of rows, at an address, times columns.

    On the way it asks the memory for what is read next: the same rows at `others`, which are read
    in another order than they lie in, and the next tile.
    """
    k, n = columns.shape
    half = k // 2
    out[:] = _ZERO
    for i in range(0, TILE, ROWS):
        left = rows + np.uintp(_FLOAT * i * width)
        middle = left + np.uintp(_FLOAT * half)
        following = left + np.uintp(_FLOAT * TILE * width)
        other = others + np.uintp(_FLOAT * i * other_width)
        place, right = out[i:].ctypes.data, columns.ctypes.data
        below = columns[half:].ctypes.data
        if n == HALF:
            _add_product(place, n, left, width, 1, right, n, half, following, HALF)
            _add_product(place, n, middle, width, 1, below, n, k - half, other, HALF)
        else:
            _add_product(place, n, left, width, 1, right, n, half, following, LANES)
            _add_product(place, n, middle, width, 1, below, n, k - half, other, LANES)
            for j in range(LANES, n, LANES):
                place, right = out[i:, j:].ctypes.data, columns[:, j:].ctypes.data
                _add_product(place, n, left, width, 1, right, n, k, 0, LANES)


@njit(nogil=True, cache=True)
@no_type_check
def _add_transposed_times(values, rows, width, tail, out):
    """out += values^T times a tile of rows, at an address; `tail` holds the last columns."""
    n, padded = values.shape[1], out.shape[1]
    whole = width // LANES * LANES
    if whole < width:
        _copy(rows, width, whole, tail)
    for j in range(0, padded, LANES):
        right, stride = rows + np.uintp(_FLOAT * j), width
        if j == whole:
            right, stride = np.uintp(tail.ctypes.data), LANES
        for i in range(0, n, ROWS):
            place, left = out[i:, j:].ctypes.data, values[:, i:].ctypes.data
            _add_product(place, padded, left, 1, n, right, stride, TILE, 0, LANES)


@intrinsic
@no_type_check
def _read(typing, address):
    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ir.FloatType().as_pointer()))

    return types.float32(types.uintp), generate


@njit(nogil=True, cache=True)
@no_type_check
def _copy(rows, width, start, out):
    """The columns of a tile from `start` on; the rest of `out` is zeros and stays so."""
    for i in range(TILE):
        for j in range(width - start):
            out[i, j] = _read(rows + np.uintp(_FLOAT * (i * width + start + j)))


@njit(nogil=True, cache=True, fastmath={"contract", "nnan", "ninf", "nsz"})
@no_type_check
def _angle(cosine, sine):
    size = abs(cosine)
    high = _C4 + size * (_C5 + size * (_C6 + size * _C7))
    acute = (_C0 + size * (_C1 + size * (_C2 + size * (_C3 + size * high)))) * np.sqrt(_ONE - size)
    return _PI - acute if cosine < _ZERO else acute


@njit(nogil=True, cache=True, fastmath={"contract", "nnan", "ninf", "nsz"})
@no_type_check
def _features(products, over_sizes, sizes, weights, out):
    """Weights times V00."""
    for i in range(products.shape[0]):
        for j in range(products.shape[1]):
            cosine = min(max(products[i, j] * over_sizes[j], -_ONE), _ONE)
            sine = np.sqrt((_ONE - cosine) * (_ONE + cosine))
            half = _PI - _angle(cosine, sine)
            out[i, j] = weights[i] * _SCALE * sizes[j] * (sine + half * cosine)


@njit(nogil=True, cache=True, fastmath={"contract", "nnan", "ninf", "nsz"})
@no_type_check
def _slopes(products, over_sizes, weights, slopes, along):
    """Slopes in V00 become weighted slopes in the products; `along` gathers those in |g|^2."""
    for i in range(products.shape[0]):
        for j in range(products.shape[1]):
            cosine = min(max(products[i, j] * over_sizes[j], -_ONE), _ONE)
            sine = np.sqrt((_ONE - cosine) * (_ONE + cosine))
            weight = weights[i] * slopes[i, j] * _SCALE
            along[j] += weight * sine * over_sizes[j]
            slopes[i, j] = weight * (_PI - _angle(cosine, sine))


@njit(nogil=True, cache=True)
@no_type_check
def _inverses(sizes):
    """1 / sizes, and 1 for 0: an input of zeros has a cosine of 0 with everything."""
    return np.where(sizes > _ZERO, _ONE / np.maximum(sizes, np.float32(1e-30)), _ONE)


@njit(nogil=True, cache=True)
@no_type_check
def _apply(group, a, b, weights, columns, sizes, seen, parts, width):
    """One group's part of F(g)."""
    rank, n = columns.shape
    over_sizes = _inverses(sizes)
    values, tail = np.empty((TILE, n), np.float32), np.zeros((TILE, LANES), np.float32)
    for start in range(0, len(weights), TILE):
        own = slice(start, start + TILE)
        rows = a + np.uintp(_FLOAT * start * width)
        points = b + np.uintp(_FLOAT * start * rank)
        _rows_times(points, rank, columns, seen[own], rows, width)
        _features(seen[own], over_sizes, sizes, weights[own], values)
        _add_transposed_times(values, rows, width, tail, parts[group])


@njit(nogil=True, cache=True)
@no_type_check
def _pull_back(group, a, b, weights, columns, sizes, seen, parts, along, rank):
    """One group's part of the gradient, and of what is along g."""
    width, n = columns.shape
    over_sizes, own_along = _inverses(sizes), np.zeros(n, np.float32)
    slopes, tail = np.empty((TILE, n), np.float32), np.zeros((TILE, LANES), np.float32)
    for start in range(0, len(weights), TILE):
        own = slice(start, start + TILE)
        rows = b + np.uintp(_FLOAT * start * rank)
        coefficients = a + np.uintp(_FLOAT * start * width)
        _rows_times(coefficients, width, columns, slopes, rows, rank)
        _slopes(seen[own], over_sizes, weights[own], slopes, own_along)
        _add_transposed_times(slopes, rows, rank, tail, parts[group])
    along[group] = own_along
