"""The path of filters and functions of any kind: pairs of positions, displacement by displacement.

Of two inputs, the pairs of positions (p, p + d) that lie one displacement d apart go through
filters and functions on their own, so that they stay in cache through all layers. Displacements are
taken modulo the grid: then every one has as many pairs as there are positions, of which a filter
only adds those that it reaches without going round. What is added, and the functions, are those of
the rules, in JAX and in float64.
"""

import functools
import itertools
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.kernels.path import STORED, AbstractPath, NotApplicable, Precision, Sides
from widthwise.kernels.rules import mirrored
from widthwise.kernels.stages import affine, behind, grid_of, numbers_of, on_grids
from widthwise.network.begin import read
from widthwise.network.conv import Conv
from widthwise.network.dense import Dense
from widthwise.network.layer import AbstractLayer
from widthwise.network.pointwise import AbstractNonlinearity, AbstractQuadrature
from widthwise.network.pool import Flatten, GlobalAveragePool, GlobalSumPool
from widthwise.network.taps import Taps
from widthwise.solve.precision import float64

LANES = 8  # pairs of inputs side by side: arrays of a slice stay in cache
TILE = 16  # inputs of a tile
# Tiles have threads of their own, and slices are too small to share one.
ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}
LEAST = 2**26  # pairs of positions times layers from which on compiling is worth it

Shape = tuple[int, ...]


class Filter(NamedTuple):
    """A filter on a grid of which the first `extents` positions are there, and the function behind
    it, or none."""

    taps: tuple[Taps, ...]
    extents: Shape
    function: AbstractNonlinearity | None


class Form(NamedTuple):
    """All that compiled code knows beforehand: filters on the grid, one for all that follow each
    other alike, the extents that are left of it, and whether positions are paired with themselves
    alone."""

    shape: Shape
    filters: tuple[Filter, ...]
    left: Shape
    alone: bool


class Side(NamedTuple):
    """Inputs, (*s, c) of one, or (*s, c, lanes) and twice along each axis; and in front of each
    function the variances of each group of filters, (repeats, *s) or (repeats, *s, lanes)."""

    x: Any
    variances: list[Any]


class DisplacementsPath(AbstractPath):
    """Slices of pairs of positions, of eight pairs of inputs at a time."""

    name: ClassVar[str] = "displacements"
    why = "filters and functions of each position, and one pooling"
    rows = TILE

    def __init__(self, form: Form, numbers, end, network, sides: Sides, names, stored: type):
        self.scale, self.last = end
        self.names, self.stored, self.form = names, stored, form
        self.symmetric = sides.x2 is None
        with float64():
            self.numbers = [jnp.asarray(group) for group in numbers]
            self.one = self._side(network, sides.x1)
            self.two = self.one if sides.x2 is None else self._side(network, sides.x2)

    def tile(self, a: slice, b: slice):
        rows, columns = range(len(self.one.x))[a], np.arange(len(self.two.x))[b]
        same = self.symmetric and a == b
        sums = np.zeros((2, len(rows), len(columns)))
        with float64():
            for start in range(0, len(columns), LANES):
                group = columns[start : start + LANES]
                two = self._lanes(group)
                for at, row in enumerate(rows):
                    if same and row > group[-1]:
                        continue
                    found = _sums(self.form, self.numbers, self._row(row), two, 1)
                    sums[:, at, start : start + len(group)] = np.asarray(found)[:, : len(group)]
        nngp, ntk = behind(self.last, *(self.scale * sums))
        found = {"nngp": nngp, "ntk": ntk}
        if same:
            found = {name: mirrored(kernel) for name, kernel in found.items()}
        return [found[name].astype(self.stored) for name in self.names]

    def _side(self, network: AbstractLayer, x: np.ndarray) -> Side:
        x = np.asarray(read(network, jnp.asarray(x)), np.float64)
        parts = [
            _variances(self.form, self.numbers, jnp.asarray(x[i : i + TILE]), 1)
            for i in range(0, len(x), TILE)
        ]
        joined = [np.concatenate(own) for own in zip(*parts, strict=True)]
        return Side(x, joined)

    def _row(self, row: int) -> Side:
        return Side(self.one.x[row], [v[row] for v in self.one.variances])

    def _lanes(self, group) -> Side:
        """Some inputs, one a lane; where there are fewer than lanes, some stand twice."""
        lanes, rank = np.resize(group, LANES), len(self.form.shape)

        def twice(part, first):
            found = np.moveaxis(part[lanes], 0, -1)
            if self.form.alone:
                return jnp.asarray(found)
            repeats = [1 + (first <= axis < first + rank) for axis in range(found.ndim)]
            return jnp.asarray(np.tile(found, repeats))

        return Side(twice(self.two.x, 0), [twice(v, 1) for v in self.two.variances])

    @classmethod
    def of(
        cls, network: AbstractLayer, own, sides: Sides, names: tuple[str, ...], precision: Precision
    ) -> "DisplacementsPath":
        """Raises NotApplicable, with the reason."""
        form, numbers, end = formed(network, own, grid_of(network, sides, math.inf, "vectors"))
        count = math.prod(form.shape)
        work = count * (1 if form.alone else count) * sum(map(len, numbers))
        if sides.pairs * work < LEAST:
            raise NotApplicable("there is too little to do")
        return cls(form, numbers, end, network, sides, names, STORED[precision])


def formed(
    network: AbstractLayer, own, shape: Shape
) -> tuple[Form, list[Float[np.ndarray, "repeats numbers"]], tuple[float, Any]]:
    """The network's form, the numbers of each group of filters, and (scale of sums, affine layers
    behind them); NotApplicable where a layer is none of those that the path knows."""
    layers = on_grids(network, own)
    filters, numbers, extents = [], [], shape
    for number, (layer, weights) in enumerate(layers):
        if isinstance(layer, (Conv, Dense)):
            filters.append(Filter(_taps(layer, extents, shape), extents, None))
            numbers.append(numbers_of(weights))
            extents = tuple(t.outputs(s) for t, s in zip(filters[-1].taps, extents, strict=True))
            continue
        if isinstance(layer, AbstractNonlinearity) and filters:
            if isinstance(layer, AbstractQuadrature):
                raise NotApplicable(f"{layer!r} has no closed form")
            filters[-1] = filters[-1]._replace(function=layer)
            continue
        if not isinstance(layer, (Flatten, GlobalAveragePool, GlobalSumPool)) or not filters:
            raise NotApplicable(f"{layer!r} is none of its layers")
        count, alone = math.prod(extents), isinstance(layer, Flatten)
        scale = {Flatten: 1 / count, GlobalAveragePool: 1 / count**2}.get(type(layer), 1.0)
        groups, counts = zip(
            *((own, len(list(same))) for own, same in itertools.groupby(filters)), strict=True
        )
        ends = np.cumsum(counts)[:-1]
        stacked = np.split(np.array(numbers), ends)
        return Form(shape, groups, extents, alone), stacked, (scale, affine(layers[number + 1 :]))
    raise NotApplicable("no pooling and no Flatten makes one vector of all positions")


def _taps(layer: Conv | Dense, extents: Shape, shape: Shape) -> tuple[Taps, ...]:
    if isinstance(layer, Dense):
        return (Taps(1, 1, 0, 0),) * len(shape)
    taps = layer.taps(extents)
    if any(own.stride > 1 for own in taps):
        raise NotApplicable(f"{layer!r} has strides")
    around = any(own.circular for own in taps)
    many = any(own.taps > s for own, s in zip(taps, shape, strict=True))
    if around and (extents != shape or many):
        raise NotApplicable("filters go round a grid that others have cut, or more than once")
    return taps


class _At(NamedTuple):
    """A displacement, as a number for each axis, and what filters reach there."""

    shift: tuple[Any, ...]
    shape: Shape

    def inside(self, extent: int, axis: int, offset: int = 0):
        """Of each position along an axis, 1 where it and its partner, both moved by an offset, are
        among the first of the grid."""
        here = jnp.arange(self.shape[axis])
        there = (here + self.shift[axis]) % self.shape[axis]
        found = [(0 <= p + offset) & (p + offset < extent) for p in (here, there)]
        return (found[0] & found[1]).astype(float)

    def mean(self, k: Float[Array, "*s lanes"], own: Filter) -> Float[Array, "*s lanes"]:
        """The mean over a filter's taps of what they reach."""
        for axis, taps in enumerate(own.taps):
            k = self._along(k, axis, taps, own.extents[axis])
        return k

    def _along(self, k, axis: int, taps: Taps, extent: int):
        if taps.taps == 1 and not taps.low:
            return k
        offsets, size = range(-taps.low, taps.taps - taps.low), self.shape[axis]
        if taps.circular:
            reached = (jnp.roll(k, -offset, axis) for offset in offsets)
            return sum(reached, jnp.zeros_like(k)) / taps.taps
        width = [(0, 0)] * k.ndim
        width[axis] = (taps.low, max(taps.taps - 1 - taps.low, 0))
        wide, found = jnp.pad(k, width), jnp.zeros_like(k)
        for tap, offset in enumerate(offsets):
            reach = jax.lax.slice_in_dim(wide, tap, tap + size, axis=axis)
            found += self._spread(self.inside(extent, axis, offset), k.ndim, axis) * reach
        return found / taps.taps

    def total(self, k: Float[Array, "*s lanes"], left: Shape) -> Float[Array, " lanes"]:
        """The sum over pairs of positions of which both are left."""
        for axis, extent in enumerate(left):
            if extent < self.shape[axis]:
                k = self._spread(self.inside(extent, axis), k.ndim, axis) * k
        return jnp.sum(k, axis=tuple(range(len(left))))

    @staticmethod
    def _spread(vector, rank: int, axis: int):
        return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


def _looped(step, state, parts, once):
    """A step for each part of arrays. XLA computes what is elementwise again for each tap of a
    filter behind it, but does not reach across loops: one turn is a loop too, of a number of them
    (`once`) that is not known when this is compiled."""
    if len(parts[0]) > 1:
        return jax.lax.scan(step, state, parts)
    shapes = jax.eval_shape(lambda: step(state, [part[0] for part in parts])[1])
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def turn(_, both):
        return step(both[0], [part[0] for part in parts])

    state, out = jax.lax.fori_loop(0, once, turn, (state, empty))
    return state, jax.tree.map(lambda x: x[None], out)


@functools.partial(jax.jit, static_argnums=0, compiler_options=ONE_THREAD)
def _sums(form: Form, numbers, one: Side, two: Side, once) -> Float[Array, "2 lanes"]:
    """Sums of (nngp, ntk) over all pairs of positions, of an input with others, one a lane."""

    def at(shift) -> Float[Array, "2 lanes"]:
        here = _At(shift, form.shape)

        def moved(part, first=0):
            """The partners' part: displaced."""
            if form.alone:
                return part
            starts, sizes = [0] * part.ndim, list(part.shape)
            starts[first : first + len(shift)], sizes[first : first + len(shift)] = (
                shift, form.shape,
            )  # fmt: skip
            return jax.lax.dynamic_slice(part, starts, sizes)

        k = jnp.einsum("...c,...cl->...l", one.x, moved(two.x)) / one.x.shape[-1]
        state = k, jnp.zeros_like(k)
        for own, each, a, b in zip(
            form.filters, numbers, one.variances, two.variances, strict=True
        ):

            def step(state, parts, own=own):
                (variance, carry, tangent, bias, free), a, b = parts
                mean = here.mean(state[0], own)
                k = variance * mean + bias
                t = carry * here.mean(state[1], own) + tangent * mean + free
                if own.function is not None:
                    dual, slope = map(jnp.vectorize, (own.function.dual, own.function.slope))
                    k, t = dual(a[..., None], k, b), t * slope(a[..., None], k, b)
                return (k, t), None

            state, _ = _looped(step, state, [each, a, moved(b, 1)], once)
        return jnp.stack([here.total(part, form.left) for part in state])

    if form.alone:
        return at((0,) * len(form.shape))
    count, lanes = math.prod(form.shape), two.x.shape[-1]

    def add(total, number):
        return total + at(jnp.unravel_index(number, form.shape)), None

    return jax.lax.scan(add, jnp.zeros((2, lanes)), jnp.arange(count))[0]


@functools.partial(jax.jit, static_argnums=0)
def _variances(form: Form, numbers, x: Float[Array, "n *s c"], once) -> list[Any]:
    """In front of each function of each group, (n, repeats, *s)."""
    here = _At((0,) * len(form.shape), form.shape)
    state, found = jnp.moveaxis(jnp.mean(x**2, axis=-1), 0, -1), []
    for own, each in zip(form.filters, numbers, strict=True):

        def step(variance, parts, own=own):
            factor, _, _, bias, _ = parts[0]
            variance = factor * here.mean(variance, own) + bias
            after = variance
            if own.function is not None:
                after = jnp.vectorize(own.function.dual)(variance, variance, variance)
            return after, variance

        state, before = _looped(step, state, [each], once)
        found.append(jnp.moveaxis(before, -1, 0))
    return found
