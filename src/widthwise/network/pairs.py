"""Moments of grids, every position against every position."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.grid import AbstractPairGrid, SameGrid, Shape, averaged, outputs
from widthwise.network.moments import (
    AbstractMoments,
    Mixture,
    Moments,
    Rules,
    Statistics,
    Tangent,
    centred,
    exact_diagonal,
    given,
    spread,
)
from widthwise.network.taps import along, placing, taking


class PairGrid(AbstractPairGrid):
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
            rows = a.reshape(len(a), -1, a.shape[-1])
            found = jnp.einsum("npc,nqc->npq", rows, rows) / a.shape[-1]
            alone = jnp.sum(rows * rows, axis=2) / a.shape[-1]
            return jax.vmap(lambda xy, xx: exact_diagonal(xy, xx, None))(found, alone)

        def rows(a):
            return a.reshape(-1, a.shape[-1])

        flat = Moments.of(rows(x), given(rows, y))
        return cls(
            own_x=own(x), own_y=given(own, y), cross=flat.xy, ntk=flat.ntk, x=flat.x, y=flat.y,
            shape=x.shape[1:-1],
        )  # fmt: skip

    @property
    def flat(self) -> Moments:
        """Positions of inputs as inputs."""
        xx, yy = _diagonals(self.own_x), given(_diagonals, self.own_y)
        return Moments(xx, self.cross, yy, self.ntk, self.x, self.y)

    def convolved(self, taps, weight, bias):
        return self._slid(taps).affine(weight, bias)

    def _slid(self, taps) -> "PairGrid":
        count = math.prod(own.taps for own in taps)

        def both(leaf):
            for axis, own in enumerate(taps):
                leaf = own.slide(leaf, (1 + axis, 1 + len(taps) + axis + _middle(leaf, taps)))
            return leaf / count

        def one(leaf):
            for axis, own in enumerate(taps):
                leaf = own.slide(leaf, (1 + axis,))
            return leaf / count

        return self._on_grids(both, one, outputs(taps, self.shape))

    def unshared(self, taps, weight, bias):
        moved = self.convolved(taps, weight, bias)
        same = jnp.eye(math.prod(moved.shape))
        (n, m), count = self._rows, len(same)

        def apart(leaf):
            return (leaf.reshape(n, count, m, count) * same[:, None]).reshape(leaf.shape)

        return dataclasses.replace(
            moved, own_x=moved.own_x * same, own_y=given(lambda own: own * same, moved.own_y),
            cross=apart(moved.cross), ntk=apart(moved.ntk),
        )  # fmt: skip

    def linear(self, matrices, average: bool = False) -> "PairGrid":
        rank = len(self.shape)

        def both(leaf):
            return along(along(leaf, matrices, 1), matrices, 1 + rank + _middle(leaf, matrices))

        shape = tuple(
            s if matrix is None else len(matrix)
            for s, matrix in zip(self.shape, matrices, strict=True)
        )
        return self._on_grids(both, lambda leaf: along(leaf, matrices, 1), shape)

    def taken(self, index: tuple[np.ndarray, ...]) -> "PairGrid":
        return self.linear(taking(index, self.shape))

    def placed(self, axis: int, start: int, extent: int) -> "PairGrid":
        return self.linear(placing(self.shape, axis, start, extent))

    def scaled(self, x, y) -> "PairGrid":
        def own(scale, leaf):
            return leaf * scale[:, :, None] * scale[:, None, :]

        rows = x.ravel()
        others = rows if y is None else y.ravel()
        both = rows[:, None] * others
        return dataclasses.replace(
            self, own_x=own(x, self.own_x), own_y=given(own, y, self.own_y),
            cross=both * self.cross, ntk=both * self.ntk, x=rows * self.x,
            y=given(lambda m: others * m, self.y),
        )  # fmt: skip

    def arranged(self, rows):
        return rows.ravel()

    def scored(self, function):
        return function(self.own_x, None), given(lambda own: function(own, None), self.own_y)

    def reshaped(self, shape: Shape) -> "PairGrid":
        return dataclasses.replace(self, shape=shape)

    def attended(self, x, y) -> "PairGrid":
        (n, m), count = self._rows, math.prod(self.shape)
        other = x if y is None else y

        def pairs(leaf):
            found = jnp.einsum("npq,nqmr->npmr", x, leaf.reshape(n, count, m, count))
            return jnp.einsum("npmr,msr->npms", found, other).reshape(leaf.shape)

        def own(weights, leaf):
            return weights @ leaf @ jnp.swapaxes(weights, 1, 2)

        def alone(weights, leaf):
            return jnp.einsum("npq,nq->np", weights, leaf.reshape(-1, count)).ravel()

        return dataclasses.replace(
            self, own_x=own(x, self.own_x), own_y=given(own, y, self.own_y),
            cross=pairs(self.cross), ntk=pairs(self.ntk), x=alone(x, self.x),
            y=given(alone, y, self.y),
        )  # fmt: skip

    def at_positions(self, alike: np.ndarray, weight: Tangent) -> "PairGrid":
        every = jnp.tile(jnp.asarray(alike, self.cross.dtype), self._rows)
        added = weight.variance * jnp.asarray(alike, self.cross.dtype)
        return dataclasses.replace(
            self, own_x=self.own_x + added, own_y=given(lambda own: own + added, self.own_y),
            cross=self.cross + weight.variance * every, ntk=self.ntk + weight.tangent * every,
        )  # fmt: skip

    def aggregated(self) -> "PairGrid":
        raise AssertionError("without links: composition refuses it")

    def gated(self, query: Tangent, key: Tangent, value: Tangent) -> "PairGrid":
        (n, m), count = self._rows, math.prod(self.shape)

        def summed(leaf):
            """Sums over all pairs of positions, for every pair of positions."""
            total = jnp.sum(leaf.reshape(n, count, m, count), axis=(1, 3))
            return jnp.repeat(jnp.repeat(total, count, 0), count, 1)

        def own(leaf):
            total = jnp.sum(leaf**2, axis=(1, 2), keepdims=True)
            return query.variance * key.variance * value.variance * leaf * total

        squares, along = summed(self.cross**2), summed(self.cross * self.ntk)
        cross = self.cross * squares
        shares = (
            query.tangent * key.variance * value.variance
            + query.variance * key.tangent * value.variance
            + query.variance * key.variance * value.tangent
        )
        carried = query.carry * key.carry * value.carry
        ntk = carried * (self.ntk * squares + 2 * self.cross * along) + shares * cross
        return dataclasses.replace(
            self, own_x=own(self.own_x), own_y=given(own, self.own_y),
            cross=query.variance * key.variance * value.variance * cross, ntk=ntk,
            x=jnp.zeros_like(self.x), y=given(jnp.zeros_like, self.y),
        )  # fmt: skip

    def pooled(self, average: bool) -> Moments:
        (n, m), count = self._rows, math.prod(self.shape)
        total = jnp.mean if average else jnp.sum

        def over(leaf):
            return total(leaf.reshape(n, count, m, count), axis=(1, 3))

        def own(leaf):
            return total(leaf, axis=(1, 2))

        def alone(leaf):
            return total(leaf.reshape(-1, count), axis=1)

        xx, yy = own(self.own_x), given(own, self.own_y)
        x, y = alone(self.x), given(alone, self.y)
        return Moments(xx, exact_diagonal(over(self.cross), xx, yy), yy, over(self.ntk), x, y)

    def flattened(self) -> Mixture:
        return self.same().flattened()

    def same(self) -> SameGrid:
        """The pairs of equal positions."""
        (n, m), count = self._rows, math.prod(self.shape)

        def pairs(leaf):
            return jnp.einsum("npmp->pnm", leaf.reshape(n, count, m, count))

        def own(leaf):
            return jnp.einsum("npp->pn", leaf)

        def alone(leaf):
            return leaf.reshape(-1, count).T

        at = Moments(
            own(self.own_x), pairs(self.cross), given(own, self.own_y), pairs(self.ntk),
            alone(self.x), given(alone, self.y),
        )  # fmt: skip
        return SameGrid(at=at, shape=self.shape)

    def affine(self, weight: Tangent, bias: Tangent) -> "PairGrid":
        def through(leaf):
            return weight.variance * leaf + bias.variance

        return self._from(self.flat.affine(weight, bias), through)

    def pointwise(self, rules: Rules) -> "PairGrid":
        def own(leaf):
            pairs = jax.vmap(jax.vmap(rules.dual, (None, 0, 0)), (0, 0, None))
            return jax.vmap(lambda k: pairs(jnp.diagonal(k), k, jnp.diagonal(k)))(leaf)

        return self._from(self.flat.pointwise(rules), own)

    def times(self, factor: float) -> "PairGrid":
        return self._from(self.flat.times(factor), lambda own: factor**2 * own)

    def dropped(self, keep: float) -> "PairGrid":
        def own(leaf):
            return jax.vmap(lambda k: exact_diagonal(k, jnp.diagonal(k) / keep, None))(leaf)

        return self._from(self.flat.dropped(keep), own)

    def add(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, PairGrid):
            return other.add(self)
        return jax.tree.map(jnp.add, self, other)

    def product(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, PairGrid):
            return other.product(self)
        flat = self.flat.product(other.flat)
        assert isinstance(flat, Moments)
        return dataclasses.replace(
            self, own_x=self.own_x * other.own_x,
            own_y=given(jnp.multiply, self.own_y, other.own_y), cross=flat.xy, ntk=flat.ntk,
            x=flat.x, y=flat.y,
        )  # fmt: skip

    def statistics(self, axes: tuple[int, ...]) -> Statistics:
        flat = self.flat

        def over(leaf):
            return averaged(leaf.reshape(-1, math.prod(self.shape)), self.shape, axes, 1).ravel()

        return spread(*(given(over, leaf) for leaf in (flat.x, flat.xx, flat.y, flat.yy)))

    def normalised(self, by: Statistics, epsilon: float) -> "PairGrid":
        count = math.prod(self.shape)

        def own(leaf, x, mean, variance):
            x, mean, variance = (v.reshape(-1, count) for v in (x, mean, variance))
            side = centred(x, mean, variance, epsilon)
            rows, columns = (..., None), (slice(None), None)
            found = leaf - x[rows] * side.mean[columns] - side.mean[rows] * side.from_mean[columns]
            return found / (side.size[rows] * side.size[columns])

        flat = self.flat.normalised(by, epsilon)
        return dataclasses.replace(
            self, own_x=own(self.own_x, self.x, by.x, by.xx),
            own_y=given(own, self.own_y, self.y, by.y, by.yy), cross=flat.xy, ntk=flat.ntk,
            x=flat.x, y=flat.y,
        )  # fmt: skip

    def mixed(self) -> "PairGrid":
        return self

    def on_grids(self, function) -> AbstractMoments:
        return function(self)

    @property
    def _rows(self) -> tuple[int, int]:
        return len(self.own_x), len(self.own_x if self.own_y is None else self.own_y)

    def _from(self, flat: Moments, own) -> "PairGrid":
        """With these pairs of inputs, and each input's own through a function."""
        return dataclasses.replace(
            self, own_x=own(self.own_x), own_y=given(own, self.own_y), cross=flat.xy,
            ntk=flat.ntk, x=flat.x, y=flat.y,
        )  # fmt: skip

    def _on_grids(self, both, one, shape: Shape) -> "PairGrid":
        """Leaves with the positions unfolded: pairs of positions, and positions alone."""
        (n, m), s = self._rows, self.shape

        def own(leaf):
            moved = both(leaf.reshape(-1, *s, *s))
            return moved.reshape(len(leaf), math.prod(shape), math.prod(shape))

        def pairs(leaf):
            moved = both(leaf.reshape(n, *s, m, *s))
            return moved.reshape(n * math.prod(shape), m * math.prod(shape))

        def alone(leaf):
            return one(leaf.reshape(-1, *s)).ravel()

        return PairGrid(
            own_x=own(self.own_x), own_y=given(own, self.own_y), cross=pairs(self.cross),
            ntk=pairs(self.ntk), x=alone(self.x), y=given(alone, self.y), shape=shape,
        )  # fmt: skip


def _middle(leaf, axes) -> int:
    """1 where the other input's rows stand between the two grids."""
    return leaf.ndim - 1 - 2 * len(axes)


def _diagonals(own: Float[Array, "n p p"]) -> Float[Array, " np"]:
    return jnp.einsum("npp->np", own).ravel()
