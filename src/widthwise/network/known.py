"""Moments of grids of which more is known: positions that are missing, nodes that are linked."""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.context import Context
from widthwise.network.grid import AbstractGrid, AbstractPairGrid, Shape, averaged
from widthwise.network.moments import (
    AbstractMoments,
    Mixture,
    Moments,
    Rules,
    Statistics,
    Tangent,
    given,
)
from widthwise.network.taps import along, placing, taking


class KnownGrid(AbstractPairGrid):
    """Any grid, with a context for each input of x and of y (None: x against itself). Where no
    position is, all moments are zero."""

    grid: AbstractGrid
    x: Context
    y: Context | None
    shape: Shape = eqx.field(static=True)

    @classmethod
    def of(cls, grid: AbstractGrid, x: Context, y: Context | None) -> "KnownGrid":
        """With zeros where no position is."""
        if x.present is not None:
            grid = grid.scaled(_there(x), given(_there, y))
        return cls(grid=grid, x=x, y=y, shape=grid.shape)

    def affine(self, weight: Tangent, bias: Tangent) -> "KnownGrid":
        return self._keep(self.grid.affine(weight, bias))

    def pointwise(self, rules: Rules) -> "KnownGrid":
        return self._keep(self.grid.pointwise(rules))

    def times(self, factor: float) -> "KnownGrid":
        return self._keep(self.grid.times(factor))

    def dropped(self, keep: float) -> "KnownGrid":
        return self._keep(self.grid.dropped(keep))

    def add(self, other: AbstractMoments) -> AbstractMoments:
        return self._joined(other, lambda one, two: one.add(two))

    def product(self, other: AbstractMoments) -> AbstractMoments:
        return self._joined(other, lambda one, two: one.product(two))

    def statistics(self, axes: tuple[int, ...]) -> Statistics:
        found = self.grid.statistics(axes)
        if self.x.present is None or not axes:
            return found
        # means over all positions become means over those that are there
        x, xx = self._over_those(found.x, found.xx, self.x, axes)
        if self.y is None:
            return Statistics(x, xx, None, None)
        return Statistics(x, xx, *self._over_those(found.y, found.yy, self.y, axes))

    def _over_those(self, mean, variance, context: Context, axes):
        share = averaged(_there(context), self.shape, axes, 1)
        share = self.grid.arranged(jnp.where(share > 0, share, 1.0))
        own = mean / share
        return own, (variance + mean**2) / share - own**2

    def normalised(self, by: Statistics, epsilon: float) -> "KnownGrid":
        return self._keep(self.grid.normalised(by, epsilon))

    def mixed(self) -> "KnownGrid":
        return self

    def on_grids(self, function: Callable) -> AbstractMoments:
        return function(self)

    def reshaped(self, shape: Shape) -> "KnownGrid":
        return self._moved(self.grid.reshaped(shape), lambda one: one.reshaped(shape))

    def convolved(self, taps, weight: Tangent, bias: Tangent) -> "KnownGrid":
        return self._moved(self.grid.convolved(taps, weight, bias), lambda one: one.slid(taps))

    def unshared(self, taps, weight: Tangent, bias: Tangent) -> "KnownGrid":
        return self._moved(self.grid.unshared(taps, weight, bias), lambda one: one.slid(taps))

    def taken(self, index: tuple[np.ndarray, ...]) -> "KnownGrid":
        matrices = taking(index, self.shape)
        return self._moved(self.grid.taken(index), lambda one: one.multiplied(matrices))

    def placed(self, axis: int, start: int, extent: int) -> "KnownGrid":
        matrices = placing(self.shape, axis, start, extent)
        moved = self.grid.placed(axis, start, extent)
        return self._moved(moved, lambda one: one.multiplied(matrices))

    def scaled(self, x, y) -> "KnownGrid":
        return dataclasses.replace(self, grid=self.grid.scaled(x, y))

    def arranged(self, rows: Float[Array, "n p"]) -> Array:
        return self.grid.arranged(rows)

    def flattened(self) -> Mixture:
        return self.grid.flattened()

    def linear(self, matrices, average: bool = False) -> "KnownGrid":
        found = self._moved(self._all.linear(matrices), lambda one: one.multiplied(matrices))
        if not average or self.x.present is None:
            return found

        def share(context: Context):
            reads = jax.vmap(lambda one: along(one.present, matrices))(context)
            reads = reads.reshape(len(reads), -1)
            return 1 / jnp.where(reads > 0, reads, 1.0)

        return found.scaled(share(self.x), given(share, self.y))

    def pooled(self, average: bool) -> Moments:
        if not average or self.x.present is None:
            return self._all.pooled(average)

        def share(context: Context):
            count = jnp.sum(_there(context), axis=1, keepdims=True)
            ones = jnp.ones((1, math.prod(self.shape)))
            return ones * (math.prod(self.shape) / jnp.maximum(count, 1.0))

        scaled = self.scaled(share(self.x), given(share, self.y))
        return scaled._all.pooled(average)

    def scored(self, function: Callable):
        def own(rows, context):
            return function(rows, None if context.present is None else _there(context))

        found = self._all.scored(lambda rows, _: rows)
        return own(found[0], self.x), given(own, found[1], self.y)

    def attended(self, x, y) -> "KnownGrid":
        return self._keep(self._all.attended(x, y))

    def aggregated(self) -> "KnownGrid":
        def taken(context: Context):
            assert context.links is not None  # composition has seen to it
            return jnp.swapaxes(context.links, 1, 2)

        return self.attended(taken(self.x), given(taken, self.y))

    def at_positions(self, alike: np.ndarray, weight: Tangent) -> "KnownGrid":
        return self._keep(self.grid.at_positions(alike, weight))

    def gated(self, query: Tangent, key: Tangent, value: Tangent) -> "KnownGrid":
        return self._keep(self._all.gated(query, key, value))

    @property
    def _all(self) -> AbstractPairGrid:
        assert isinstance(self.grid, AbstractPairGrid)  # `needs` has seen to it
        return self.grid

    def _keep(self, grid: AbstractMoments) -> "KnownGrid":
        assert isinstance(grid, AbstractGrid)
        return KnownGrid.of(grid, self.x, self.y)

    def _moved(self, grid: AbstractGrid, how: Callable) -> "KnownGrid":
        return KnownGrid.of(grid, jax.vmap(how)(self.x), given(jax.vmap(how), self.y))

    def _joined(self, other: AbstractMoments, how: Callable) -> AbstractMoments:
        if not isinstance(other, KnownGrid):
            return how(other, self)
        found, y = how(self.grid, other.grid), given(Context.joined, self.y, other.y)
        return dataclasses.replace(self, grid=found, x=self.x.joined(other.x), y=y)


def _there(context: Context) -> Float[Array, "n p"]:
    """1 where a position is, for each input."""
    assert context.present is not None
    return context.present.reshape(len(context.present), -1)
