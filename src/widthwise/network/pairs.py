"""Moments of grids, every position against every position."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.grid import AbstractGrid, SameGrid, Shape, averaged, outputs
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

        return self._on_grids(both, one, outputs(taps, self.shape))

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

    def reshaped(self, shape: Shape) -> "PairGrid":
        return dataclasses.replace(self, shape=shape)

    def attended(self, x: Float[Array, "n p p"], y: Float[Array, "m p p"] | None) -> "PairGrid":
        """Positions of each input multiplied by a matrix of its own, (outputs, inputs)."""
        (n, m), count = self._rows, math.prod(self.shape)
        other = x if y is None else y

        def pairs(leaf):
            found = jnp.einsum("npq,nqmr->npmr", x, leaf.reshape(n, count, m, count))
            return jnp.einsum("npmr,msr->npms", found, other).reshape(leaf.shape)

        def own(weights, leaf):
            return weights @ leaf @ jnp.swapaxes(weights, 1, 2)

        def alone(weights, leaf):
            return jnp.einsum("npq,nq->np", weights, leaf.reshape(-1, count)).ravel()

        return PairGrid(
            own(x, self.own_x), None if y is None else own(y, self.own_y), pairs(self.cross),
            pairs(self.ntk), alone(x, self.x), None if y is None else alone(y, self.y), self.shape,
        )  # fmt: skip

    def at_positions(self, alike: np.ndarray, weight: Tangent) -> "PairGrid":
        """With embeddings of the positions added, of these correlations."""
        (n, m), alike = self._rows, jnp.asarray(alike, self.cross.dtype)
        every = jnp.tile(alike, (n, m))
        return dataclasses.replace(
            self, own_x=self.own_x + weight.variance * alike,
            own_y=None if self.own_y is None else self.own_y + weight.variance * alike,
            cross=self.cross + weight.variance * every, ntk=self.ntk + weight.tangent * every,
        )  # fmt: skip

    def gated(self, query: Tangent, key: Tangent, value: Tangent) -> "PairGrid":
        """Queries times the sum over positions of keys times values, feature by feature."""
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
            self, own_x=own(self.own_x), own_y=None if self.own_y is None else own(self.own_y),
            cross=query.variance * key.variance * value.variance * cross, ntk=ntk,
            x=jnp.zeros_like(self.x), y=None if self.y is None else jnp.zeros_like(self.y),
        )  # fmt: skip

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
            return averaged(leaf.reshape(-1, math.prod(self.shape)), self.shape, axes, 1).ravel()

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


def _diagonals(own: Float[Array, "n p p"]) -> Float[Array, " np"]:
    return jnp.einsum("npp->np", own).ravel()
