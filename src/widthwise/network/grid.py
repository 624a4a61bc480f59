"""Moments of signals that have a feature vector at every position of a grid.

Two types, by which pairs of positions a network needs: a network that ends in Flatten reads each
position against the same position of the other input (`SameGrid`, here), one that pools or attends
reads all pairs (`PairGrid`, in pairs.py). Positions are numbered row by row.
"""

import abc
import math
from collections.abc import Callable

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
    given,
    spread,
)
from widthwise.network.taps import Taps

Shape = tuple[int, ...]


class AbstractGrid(AbstractMoments):
    """What layers that know of positions ask for, besides what every moments can do."""

    shape: eqx.AbstractVar[Shape]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @abc.abstractmethod
    def reshaped(self, shape: Shape) -> "AbstractGrid":
        """As many positions on another grid."""

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
    def placed(self, axis: int, start: int, extent: int) -> "AbstractGrid":
        """On a grid of another extent along an axis, from there on, with zeros elsewhere."""

    @abc.abstractmethod
    def at_positions(self, alike: np.ndarray, weight: Tangent) -> "AbstractGrid":
        """With embeddings of the positions added, of these correlations."""

    @abc.abstractmethod
    def scaled(self, x: Float[Array, "n p"], y: Float[Array, "m p"] | None) -> "AbstractGrid":
        """Every position of every input multiplied by a number of its own."""

    @abc.abstractmethod
    def arranged(self, rows: Float[Array, "n p"]) -> Array:
        """Numbers of positions of inputs, as means and statistics hold them."""

    @abc.abstractmethod
    def flattened(self) -> Mixture:
        """All features of all positions as one vector."""


class AbstractPairGrid(AbstractGrid):
    """What needs every position against every position."""

    @abc.abstractmethod
    def linear(
        self, matrices: tuple[np.ndarray | None, ...], average: bool = False
    ) -> "AbstractPairGrid":
        """Positions multiplied by a matrix along each axis; None leaves an axis as it is. With
        `average`, rows of the matrices sum to one, over the positions that are there."""

    @abc.abstractmethod
    def pooled(self, average: bool) -> Moments:
        """The mean over all positions, or their sum."""

    @abc.abstractmethod
    def scored(self, function: Callable) -> tuple[Array, Array | None]:
        """function(covariances (n, p, p), which positions are there or None), of x and of y."""

    @abc.abstractmethod
    def attended(
        self, x: Float[Array, "n p p"], y: Float[Array, "m p p"] | None
    ) -> "AbstractPairGrid":
        """Positions of each input multiplied by a matrix of its own, (outputs, inputs)."""

    @abc.abstractmethod
    def aggregated(self) -> "AbstractPairGrid":
        """Each position the sum of those that it is linked to."""

    @abc.abstractmethod
    def gated(self, query: Tangent, key: Tangent, value: Tangent) -> "AbstractPairGrid":
        """Queries times the sum over positions of keys times values, feature by feature."""


class SameGrid(AbstractGrid):
    """Each position against the same position of the other input: `at` are vectors' moments with
    the positions as a leading axis."""

    at: Moments
    shape: Shape = eqx.field(static=True)

    @classmethod
    def of(cls, x: Float[Array, "n *s c"], y: Float[Array, "m *s c"] | None) -> "SameGrid":
        rows, others = _rows_first(x), given(_rows_first, y)
        return cls(at=jax.vmap(Moments.of)(rows, others), shape=x.shape[1:-1])

    def convolved(self, taps, weight, bias):
        return self._slid(taps).affine(weight, bias)

    def unshared(self, taps, weight, bias):
        return self.convolved(taps, weight, bias)

    def _slid(self, taps) -> "SameGrid":
        count = math.prod(own.taps for own in taps)

        def slide(leaf):
            leaf = leaf.reshape(*self.shape, *leaf.shape[1:])
            for axis, own in enumerate(taps):
                leaf = own.slide(leaf, (axis,))
            return leaf.reshape(-1, *leaf.shape[len(self.shape) :]) / count

        return SameGrid(at=jax.tree.map(slide, self.at), shape=outputs(taps, self.shape))

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
            return averaged(leaf, self.shape, axes, 0)

        return spread(*(given(over, leaf) for leaf in (at.x, at.xx, at.y, at.yy)))

    def normalised(self, by: Statistics, epsilon: float) -> "SameGrid":
        return self._with(jax.vmap(lambda at, own: at.normalised(own, epsilon))(self.at, by))

    def taken(self, index: tuple[np.ndarray, ...]) -> "SameGrid":
        kept, shape = _numbers(index, self.shape), tuple(map(len, index))
        return SameGrid(at=jax.tree.map(lambda leaf: leaf[kept], self.at), shape=shape)

    def placed(self, axis: int, start: int, extent: int) -> "SameGrid":
        shape = (*self.shape[:axis], extent, *self.shape[axis + 1 :])
        around = [(0, 0)] * len(shape)
        around[axis] = (start, extent - start - self.shape[axis])

        def moved(leaf):
            rest = leaf.shape[1:]
            grid = jnp.pad(leaf.reshape(*self.shape, *rest), [*around, *[(0, 0)] * len(rest)])
            return grid.reshape(-1, *rest)

        return SameGrid(at=jax.tree.map(moved, self.at), shape=shape)

    def scaled(self, x, y) -> "SameGrid":
        rows = x.T
        others = rows if y is None else y.T
        both = rows[:, :, None] * others[:, None, :]
        at = self.at
        return self._with(Moments(
            rows**2 * at.xx, both * at.xy, given(lambda c: others**2 * c, at.yy), both * at.ntk,
            rows * at.x, given(lambda m: others * m, at.y),
        ))  # fmt: skip

    def at_positions(self, alike: np.ndarray, weight: Tangent) -> "SameGrid":
        one = jnp.asarray(np.diag(alike))[:, None]
        at, both = self.at, one[:, :, None]
        return self._with(Moments(
            at.xx + weight.variance * one, at.xy + weight.variance * both,
            given(lambda c: c + weight.variance * one, at.yy), at.ntk + weight.tangent * both,
            at.x, at.y,
        ))  # fmt: skip

    def arranged(self, rows):
        return rows.T

    def reshaped(self, shape: Shape) -> "SameGrid":
        return SameGrid(at=self.at, shape=shape)

    def flattened(self) -> Mixture:
        count = math.prod(self.shape)
        return Mixture(self.at, (1 / count,) * count)

    def mixed(self) -> "SameGrid":
        return self

    def on_grids(self, function) -> AbstractMoments:
        return function(self)

    def _each(self, function) -> "SameGrid":
        return self._with(jax.vmap(function)(self.at))

    def _with(self, at: Moments) -> "SameGrid":
        return SameGrid(at=at, shape=self.shape)


def outputs(taps, shape: Shape) -> Shape:
    return tuple(own.outputs(s) for own, s in zip(taps, shape, strict=True))


def _numbers(index: tuple[np.ndarray, ...], shape: Shape) -> np.ndarray:
    """Numbers of positions, row by row, from those along each axis."""
    return np.ravel_multi_index(np.ix_(*index), shape).ravel()


def _rows_first(x):
    """(n, *s, c) as (p, n, c)."""
    return jnp.moveaxis(x.reshape(len(x), -1, x.shape[-1]), 1, 0)


def averaged(leaf, shape: Shape, axes: tuple[int, ...], before: int):
    """Means over axes of the grid, which stands as one axis after `before` others."""
    lead, rest = leaf.shape[:before], leaf.shape[before + 1 :]
    unfolded = leaf.reshape(*lead, *shape, *rest)
    found = jnp.mean(unfolded, axis=tuple(before + a for a in axes), keepdims=True)
    return jnp.broadcast_to(found, unfolded.shape).reshape(leaf.shape)
