"""Moments of signals that have a feature vector at every position of a grid.

Two types, by which pairs of positions a network needs: a network that ends in Flatten reads each
position against the same position of the other input (`SameGrid`), one that pools or attends reads
all pairs (`PairGrid`). Positions are numbered row by row.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.moments import (
    AbstractMoments,
    Mixture,
    Moments,
    Rules,
    Statistics,
    Tangent,
    centred,
    exact_diagonal,
)
from widthwise.network.taps import Taps

Shape = tuple[int, ...]


class AbstractGrid(AbstractMoments):
    """What layers that know of positions ask for, besides what every moments can do."""

    shape: eqx.AbstractVar[Shape]

    @abc.abstractmethod
    def convolved(self, taps: tuple[Taps, ...], weight: Tangent, bias: Tangent) -> "AbstractGrid":
        """Through a filter of fresh weights, one `Taps` an axis, shared by all positions."""

    @abc.abstractmethod
    def unshared(self, taps: tuple[Taps, ...], weight: Tangent, bias: Tangent) -> "AbstractGrid":
        """Through a filter of weights that each position has for itself."""

    @abc.abstractmethod
    def taken(self, index: tuple[np.ndarray, ...]) -> "AbstractGrid":
        """Some positions, by their numbers along each axis."""

    @abc.abstractmethod
    def flattened(self) -> Mixture:
        """All features of all positions as one vector."""


class SameGrid(AbstractGrid):
    """Each position against the same position of the other input: `at` are vectors' moments with
    the positions as a leading axis."""

    at: Moments
    shape: Shape = eqx.field(static=True)

    @classmethod
    def of(cls, x: Float[Array, "n *s c"], y: Float[Array, "m *s c"] | None) -> "SameGrid":
        rows, others = (None if a is None else _rows_first(a) for a in (x, y))
        return cls(jax.vmap(Moments.of)(rows, others), x.shape[1:-1])

    def convolved(self, taps, weight, bias):
        return self._slid(taps).affine(weight, bias)

    def unshared(self, taps, weight, bias):
        return self.convolved(taps, weight, bias)

    def _slid(self, taps) -> "SameGrid":
        count = math.prod(own.count for own in taps)

        def slide(leaf):
            leaf = leaf.reshape(*self.shape, *leaf.shape[1:])
            for axis, own in enumerate(taps):
                leaf = own.slide(leaf, (axis,))
            return leaf.reshape(-1, *leaf.shape[len(self.shape) :]) / count

        return SameGrid(jax.tree.map(slide, self.at), _outputs(taps, self.shape))

    def affine(self, weight: Tangent, bias: Tangent) -> "SameGrid":
        return self._each(lambda at: at.affine(weight, bias))

    def pointwise(self, rules: Rules) -> "SameGrid":
        return self._each(lambda at: at.pointwise(rules))

    def times(self, factor: float) -> "SameGrid":
        return self._each(lambda at: at.times(factor))

    def dropped(self, keep: float) -> "SameGrid":
        return self._each(lambda at: at.dropped(keep))

    def add(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, SameGrid):
            return other.add(self)
        return self._with(jax.vmap(lambda a, b: a.add(b))(self.at, other.at))

    def product(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, SameGrid):
            return other.product(self)
        return self._with(jax.vmap(lambda a, b: a.product(b))(self.at, other.at))

    def statistics(self, axes: tuple[int, ...]) -> Statistics:
        at = self.at

        def over(leaf):
            return None if leaf is None else _averaged(leaf, self.shape, axes, 0)

        x, xx, y, yy = map(over, (at.x, at.xx, at.y, at.yy))
        return Statistics(x, xx - x**2, y, None if yy is None else yy - y**2)

    def normalised(self, by: Statistics, epsilon: float) -> "SameGrid":
        return self._with(jax.vmap(lambda at, own: at.normalised(own, epsilon))(self.at, by))

    def taken(self, index: tuple[np.ndarray, ...]) -> "SameGrid":
        kept, shape = _numbers(index, self.shape), tuple(map(len, index))
        return SameGrid(jax.tree.map(lambda leaf: leaf[kept], self.at), shape)

    def flattened(self) -> Mixture:
        count = math.prod(self.shape)
        return Mixture(self.at, jnp.full(count, 1 / count, self.at.xy.dtype))

    def mixed(self) -> "SameGrid":
        return self

    def on_grids(self, function) -> AbstractMoments:
        return function(self)

    def _each(self, function) -> "SameGrid":
        return self._with(jax.vmap(function)(self.at))

    def _with(self, at: Moments) -> "SameGrid":
        return SameGrid(at, self.shape)


class PairGrid(AbstractGrid):
    """Every position against every position. A position of an input is a row of `cross`, as if
    it were an input of its own; `own_x` and `own_y` hold each input against itself."""

    own_x: Float[Array, "n p p"]
    own_y: Float[Array, "m p p"] | None
    cross: Float[Array, "np mp"]
    ntk: Float[Array, "np mp"]
    x: Float[Array, " np"]
    y: Float[Array, " mp"] | None
    shape: Shape = eqx.field(static=True)

    @classmethod
    def of(cls, x: Float[Array, "n *s c"], y: Float[Array, "m *s c"] | None) -> "PairGrid":
        def own(a):
            if a is None:
                return None
            rows = a.reshape(len(a), -1, a.shape[-1])
            found = jnp.einsum("npc,nqc->npq", rows, rows) / a.shape[-1]
            alone = jnp.sum(rows * rows, axis=2) / a.shape[-1]
            return jax.vmap(lambda xy, xx: exact_diagonal(xy, xx, None))(found, alone)

        flat = Moments.of(*(None if a is None else a.reshape(-1, a.shape[-1]) for a in (x, y)))  # type: ignore[arg-type]
        return cls(own(x), own(y), flat.xy, flat.ntk, flat.x, flat.y, x.shape[1:-1])  # type: ignore[arg-type]

    @property
    def flat(self) -> Moments:
        """Positions of inputs as inputs."""
        xx, yy = _diagonals(self.own_x), None if self.own_y is None else _diagonals(self.own_y)
        return Moments(xx, self.cross, yy, self.ntk, self.x, self.y)

    def convolved(self, taps, weight, bias):
        return self._slid(taps).affine(weight, bias)

    def _slid(self, taps) -> "PairGrid":
        count = math.prod(own.count for own in taps)

        def both(leaf):
            for axis, own in enumerate(taps):
                leaf = own.slide(leaf, (1 + axis, 1 + len(taps) + axis + _middle(leaf, taps)))
            return leaf / count

        def one(leaf):
            for axis, own in enumerate(taps):
                leaf = own.slide(leaf, (1 + axis,))
            return leaf / count

        return self._on_grids(both, one, _outputs(taps, self.shape))

    def unshared(self, taps, weight, bias):
        moved = self.convolved(taps, weight, bias)
        same = jnp.eye(math.prod(moved.shape))
        (n, m), count = self._rows, len(same)

        def apart(leaf):
            return (leaf.reshape(n, count, m, count) * same[:, None]).reshape(leaf.shape)

        return PairGrid(
            moved.own_x * same, None if moved.own_y is None else moved.own_y * same,
            apart(moved.cross), apart(moved.ntk), moved.x, moved.y, moved.shape,
        )  # fmt: skip

    def linear(self, matrices: tuple[np.ndarray | None, ...]) -> "PairGrid":
        """Positions multiplied by a matrix along each axis; None leaves an axis as it is."""

        def along(leaf, first):
            for axis, matrix in enumerate(matrices):
                if matrix is not None:
                    moved = jnp.tensordot(
                        leaf, jnp.asarray(matrix, leaf.dtype), ((first + axis,), (1,))
                    )
                    leaf = jnp.moveaxis(moved, -1, first + axis)
            return leaf

        rank = len(self.shape)

        def both(leaf):
            return along(along(leaf, 1), 1 + rank + _middle(leaf, matrices))

        shape = tuple(
            s if matrix is None else len(matrix)
            for s, matrix in zip(self.shape, matrices, strict=True)
        )
        return self._on_grids(both, lambda leaf: along(leaf, 1), shape)

    def taken(self, index: tuple[np.ndarray, ...]) -> "PairGrid":
        return self.linear(tuple(np.eye(s)[i] for i, s in zip(index, self.shape, strict=True)))

    def pooled(self) -> Moments:
        """The mean over all positions."""
        (n, m), count = self._rows, math.prod(self.shape)

        def over(leaf):
            return jnp.mean(leaf.reshape(n, count, m, count), axis=(1, 3))

        xx = jnp.mean(self.own_x, axis=(1, 2))
        yy = None if self.own_y is None else jnp.mean(self.own_y, axis=(1, 2))
        x = jnp.mean(self.x.reshape(n, count), axis=1)
        y = None if self.y is None else jnp.mean(self.y.reshape(m, count), axis=1)
        return Moments(xx, exact_diagonal(over(self.cross), xx, yy), yy, over(self.ntk), x, y)

    def flattened(self) -> Mixture:
        return self.same().flattened()

    def same(self) -> SameGrid:
        """The pairs of equal positions."""
        (n, m), count = self._rows, math.prod(self.shape)

        def pairs(leaf):
            return jnp.einsum("npmp->pnm", leaf.reshape(n, count, m, count))

        def own(leaf):
            return None if leaf is None else jnp.einsum("npp->pn", leaf)

        means = self.x.reshape(n, count).T, None if self.y is None else self.y.reshape(m, count).T
        at = Moments(own(self.own_x), pairs(self.cross), own(self.own_y), pairs(self.ntk), *means)  # type: ignore[arg-type]
        return SameGrid(at, self.shape)

    def affine(self, weight: Tangent, bias: Tangent) -> "PairGrid":
        def through(leaf):
            return None if leaf is None else weight.variance * leaf + bias.variance

        return self._from(self.flat.affine(weight, bias), through(self.own_x), through(self.own_y))

    def pointwise(self, rules: Rules) -> "PairGrid":
        def own(leaf):
            if leaf is None:
                return None
            pairs = jax.vmap(jax.vmap(rules.dual, (None, 0, 0)), (0, 0, None))
            return jax.vmap(lambda k: pairs(jnp.diagonal(k), k, jnp.diagonal(k)))(leaf)

        return self._from(self.flat.pointwise(rules), own(self.own_x), own(self.own_y))

    def times(self, factor: float) -> "PairGrid":
        own = (None if k is None else factor**2 * k for k in (self.own_x, self.own_y))
        return self._from(self.flat.times(factor), *own)

    def dropped(self, keep: float) -> "PairGrid":
        def own(leaf):
            if leaf is None:
                return None
            return jax.vmap(lambda k: exact_diagonal(k, jnp.diagonal(k) / keep, None))(leaf)

        return self._from(self.flat.dropped(keep), own(self.own_x), own(self.own_y))

    def add(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, PairGrid):
            return other.add(self)
        return jax.tree.map(jnp.add, self, other)

    def product(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, PairGrid):
            return other.product(self)
        flat = self.flat.product(other.flat)
        assert isinstance(flat, Moments)
        own_y = None if self.own_y is None else self.own_y * other.own_y
        return self._from(flat, self.own_x * other.own_x, own_y)

    def statistics(self, axes: tuple[int, ...]) -> Statistics:
        flat = self.flat

        def over(leaf):
            if leaf is None:
                return None
            return _averaged(leaf.reshape(-1, math.prod(self.shape)), self.shape, axes, 1).ravel()

        x, xx, y, yy = map(over, (flat.x, flat.xx, flat.y, flat.yy))
        return Statistics(x, xx - x**2, y, None if yy is None else yy - y**2)

    def normalised(self, by: Statistics, epsilon: float) -> "PairGrid":
        count = math.prod(self.shape)

        def own(leaf, x, mean, variance):
            if leaf is None:
                return None
            side = centred(*(v.reshape(-1, count) for v in (x, mean, variance)), epsilon)
            x, rows, columns = x.reshape(-1, count), (..., None), (slice(None), None)
            found = leaf - x[rows] * side.mean[columns] - side.mean[rows] * side.from_mean[columns]
            return found / (side.size[rows] * side.size[columns])

        return self._from(
            self.flat.normalised(by, epsilon), own(self.own_x, self.x, by.x, by.xx),
            own(self.own_y, self.y, by.y, by.yy),
        )  # fmt: skip

    def mixed(self) -> "PairGrid":
        return self

    def on_grids(self, function) -> AbstractMoments:
        return function(self)

    @property
    def _rows(self) -> tuple[int, int]:
        return len(self.own_x), len(self.own_x if self.own_y is None else self.own_y)

    def _from(self, flat: Moments, own_x, own_y) -> "PairGrid":
        return PairGrid(own_x, own_y, flat.xy, flat.ntk, flat.x, flat.y, self.shape)

    def _on_grids(self, both, one, shape: Shape) -> "PairGrid":
        """Leaves with the positions unfolded: pairs of positions, and positions alone."""
        (n, m), s = self._rows, self.shape

        def own(leaf):
            if leaf is None:
                return None
            moved = both(leaf.reshape(-1, *s, *s))
            return moved.reshape(len(leaf), math.prod(shape), math.prod(shape))

        def pairs(leaf):
            moved = both(leaf.reshape(n, *s, m, *s))
            return moved.reshape(n * math.prod(shape), m * math.prod(shape))

        def alone(leaf):
            return None if leaf is None else one(leaf.reshape(-1, *s)).ravel()

        return PairGrid(
            own(self.own_x), own(self.own_y), pairs(self.cross), pairs(self.ntk),  # type: ignore[arg-type]
            alone(self.x), alone(self.y), shape,  # type: ignore[arg-type]
        )  # fmt: skip


def _middle(leaf, axes) -> int:
    """1 where the other input's rows stand between the two grids."""
    return leaf.ndim - 1 - 2 * len(axes)


def _outputs(taps, shape: Shape) -> Shape:
    return tuple(own.outputs(s) for own, s in zip(taps, shape, strict=True))


def _numbers(index: tuple[np.ndarray, ...], shape: Shape) -> np.ndarray:
    """Numbers of positions, row by row, from those along each axis."""
    return np.ravel_multi_index(np.ix_(*index), shape).ravel()


def _rows_first(x):
    """(n, *s, c) as (p, n, c)."""
    return jnp.moveaxis(x.reshape(len(x), -1, x.shape[-1]), 1, 0)


def _diagonals(own: Float[Array, "n p p"]) -> Float[Array, " np"]:
    return jnp.einsum("npp->np", own).ravel()


def _averaged(leaf, shape: Shape, axes: tuple[int, ...], before: int):
    """Means over axes of the grid, which stands as one axis after `before` others."""
    lead, rest = leaf.shape[:before], leaf.shape[before + 1 :]
    unfolded = leaf.reshape(*lead, *shape, *rest)
    found = jnp.mean(unfolded, axis=tuple(before + a for a in axes), keepdims=True)
    return jnp.broadcast_to(found, unfolded.shape).reshape(leaf.shape)
