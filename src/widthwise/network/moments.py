"""What a layer knows in the lazy limit: covariances and tangent kernel of pairs of inputs."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Scalar = float | Float[Array, ""]
Rule = Callable[..., Any]  # of scalars, to a scalar


class Tangent(eqx.Module):
    """What the limit sees of one weight: how it passes covariances and tangent kernels on.

    `variance` times the covariance before it is that after it; `tangent` times it is the weight's
    own share in the tangent kernel; `carry` times the tangent kernel before it is what remains of
    the earlier weights' shares. Where the initial function vanishes in the limit, `variance` is 0
    and `carry` is not: earlier weights step further by what it shrinks.
    """

    variance: Scalar
    tangent: Scalar
    carry: Scalar


class Rules(NamedTuple):
    """A nonlinearity f on one pair of Gaussian inputs (u, v) of covariance [[a, c], [c, b]]."""

    dual: Rule  # E f(u) f(v)
    slope: Rule  # E f'(u) f'(v)
    mean: Rule  # E f(u), of its variance


class Statistics(NamedTuple):
    """Means and variances of x and of y; they have no fluctuations at infinite width."""

    x: Float[Array, "..."]
    xx: Float[Array, "..."]
    y: Float[Array, "..."] | None
    yy: Float[Array, "..."] | None


class AbstractMoments(eqx.Module):
    """Layers speak to moments through these methods only: vectors, grids of positions and features
    that differ in law are other types, with the same layers."""

    @property
    @abc.abstractmethod
    def rank(self) -> int:
        """Axes of the grid of positions."""

    @abc.abstractmethod
    def affine(self, weight: Tangent, bias: Tangent) -> "AbstractMoments":
        """Through fresh Gaussian weights and biases, at each position."""

    @abc.abstractmethod
    def pointwise(self, rules: Rules) -> "AbstractMoments":
        """Through a nonlinearity."""

    @abc.abstractmethod
    def add(self, other: "AbstractMoments") -> "AbstractMoments":
        """The sum of two signals that are uncorrelated given the inputs."""

    @abc.abstractmethod
    def product(self, other: "AbstractMoments") -> "AbstractMoments":
        """The product, feature by feature, of two signals that are independent."""

    @abc.abstractmethod
    def times(self, factor: float) -> "AbstractMoments":
        """The signal multiplied by a number."""

    @abc.abstractmethod
    def dropped(self, keep: float) -> "AbstractMoments":
        """Every feature kept with this probability and divided by it, for each input anew."""

    @abc.abstractmethod
    def statistics(self, axes: tuple[int, ...]) -> "Statistics":
        """Mean and variance over all features, and over these axes of the grid."""

    @abc.abstractmethod
    def normalised(self, by: "Statistics", epsilon: float) -> "AbstractMoments":
        """Features less that mean, over the root of that variance and epsilon."""

    @abc.abstractmethod
    def mixed(self) -> "AbstractMoments":
        """All features alike: averages over those that differ in law."""

    @abc.abstractmethod
    def on_grids(self, function: Callable) -> "AbstractMoments":
        """What acts on the positions only, on the grid that each law of features has."""

    @abc.abstractmethod
    def flattened(self) -> "AbstractMoments":
        """All features of all positions as one vector."""


class Moments(AbstractMoments):
    """Moments of vectors: x of n rows against y of m rows, or x against itself (`yy` is None).

    >>> Moments.of(jnp.ones((3, 5))).xy.shape
    (3, 3)

    `xy` holds E[h(x) h(y)] a feature, `xx` and `yy` the same of each input with itself, `x` and `y`
    the means E[h(x)], `ntk` the tangent kernel. Inputs enter as (1 / d) x.y, uncentred. Grids keep
    those of their positions stacked along leading axes.
    """

    xx: Float[Array, "*p n"]
    xy: Float[Array, "*p n m"]
    yy: Float[Array, "*p m"] | None
    ntk: Float[Array, "*p n m"]
    x: Float[Array, "*p n"]
    y: Float[Array, "*p m"] | None

    @property
    def rank(self) -> int:
        return 0

    @classmethod
    def of(cls, x: Float[Array, "n d"], y: Float[Array, "m d"] | None = None) -> "Moments":
        x = jnp.asarray(x)
        other = x if y is None else jnp.asarray(y)
        xy = x @ other.T / x.shape[1]
        xx = jnp.sum(x * x, axis=1) / x.shape[1]
        yy = None if y is None else jnp.sum(other * other, axis=1) / x.shape[1]
        means = jnp.mean(x, axis=1), None if y is None else jnp.mean(other, axis=1)
        return cls(xx, exact_diagonal(xy, xx, yy), yy, jnp.zeros_like(xy), *means)

    def affine(self, weight: Tangent, bias: Tangent) -> "Moments":
        def through(c):
            return weight.variance * c + bias.variance

        ntk = weight.carry * self.ntk + weight.tangent * self.xy + bias.tangent
        xx, xy, yy = through(self.xx), through(self.xy), given(through, self.yy)
        return Moments(xx, xy, yy, ntk, jnp.zeros_like(self.x), given(jnp.zeros_like, self.y))

    def pointwise(self, rules: Rules) -> "Moments":
        # This is the one place where rules for one pair meet many pairs. What depends on x
        # alone or on y alone stays outside the inner loop: vmap sees to it.
        def pairs(rule):
            columns = jax.vmap(rule, (None, 0, 0))
            return jax.vmap(columns, (0, 0, None))(
                self.xx, self.xy, self.xx if self.yy is None else self.yy
            )

        alone, mean = jax.vmap(lambda a: rules.dual(a, a, a)), jax.vmap(rules.mean)
        xx = alone(self.xx)
        yy, y = given(alone, self.yy), given(mean, self.yy)
        xy = exact_diagonal(pairs(rules.dual), xx, yy)
        return Moments(xx, xy, yy, self.ntk * pairs(rules.slope), mean(self.xx), y)

    def add(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, Moments):
            return other.add(self)
        return jax.tree.map(jnp.add, self, other)

    def product(self, other: AbstractMoments) -> AbstractMoments:
        if not isinstance(other, Moments):
            return other.product(self)
        both = jax.tree.map(jnp.multiply, self, other)
        ntk = self.ntk * other.xy + self.xy * other.ntk
        return Moments(both.xx, both.xy, both.yy, ntk, both.x, both.y)

    def times(self, factor: float) -> "Moments":
        square = factor**2
        yy, y = given(lambda c: square * c, self.yy), given(lambda m: factor * m, self.y)
        return Moments(
            square * self.xx, square * self.xy, yy, square * self.ntk, factor * self.x, y
        )

    def dropped(self, keep: float) -> "Moments":
        # two inputs are dropped from independently, an input and itself are not
        xx, yy = self.xx / keep, given(lambda c: c / keep, self.yy)
        return Moments(xx, exact_diagonal(self.xy, xx, yy),
                       yy, exact_diagonal(self.ntk, jnp.diagonal(self.ntk) / keep, yy),
                       self.x, self.y)  # fmt: skip

    def statistics(self, axes: tuple[int, ...]) -> Statistics:
        assert not axes
        return spread(self.x, self.xx, self.y, self.yy)

    def normalised(self, by: Statistics, epsilon: float) -> "Moments":
        own = centred(self.x, by.x, by.xx, epsilon)
        other = own if self.y is None else centred(self.y, by.y, by.yy, epsilon)
        size = own.size[:, None] * other.size
        # E (h - a)(k - b) with the means of h and k less a and b kept apart
        xy = (self.xy - self.x[:, None] * other.mean - own.mean[:, None] * other.from_mean) / size
        xx, yy = own.second(self.xx), given(other.second, self.yy)
        y = given(lambda _: other.from_mean / other.size, self.y)
        xy = exact_diagonal(xy, xx, yy)
        return Moments(xx, xy, yy, self.ntk / size, own.from_mean / own.size, y)

    def mixed(self) -> "Moments":
        return self

    def on_grids(self, function: Callable) -> "Moments":
        raise AssertionError("a vector has no grid of positions: composition refuses it")

    def flattened(self) -> "Moments":
        return self


class Mixture(AbstractMoments):
    """Features of several laws, as after Flatten or Concatenate: `parts` holds the moments of each,
    stacked along a leading axis, and `shares` how large a part of the features they are."""

    parts: AbstractMoments
    shares: tuple[float, ...] = eqx.field(static=True)

    @property
    def rank(self) -> int:
        return self.parts.rank

    def affine(self, weight: Tangent, bias: Tangent) -> AbstractMoments:
        return self.mixed().affine(weight, bias)

    def pointwise(self, rules: Rules) -> "Mixture":
        return self._each(lambda part: part.pointwise(rules))

    def add(self, other: AbstractMoments) -> "Mixture":
        return self._joined(other, lambda a, b: a.add(b))

    def product(self, other: AbstractMoments) -> "Mixture":
        return self._joined(other, lambda a, b: a.product(b))

    def _joined(self, other: AbstractMoments, how: Callable) -> "Mixture":
        if not isinstance(other, Mixture):
            return self._each(lambda part: how(part, other))
        alike = len(self.shares) == len(other.shares)
        if not (alike and np.allclose(self.shares, other.shares)):
            raise ValueError(
                "Two branches that are joined feature by feature have features of several laws in "
                "different places: end one of them in Dense()."
            )
        return Mixture(jax.vmap(how)(self.parts, other.parts), self.shares)

    def times(self, factor: float) -> "Mixture":
        return self._each(lambda part: part.times(factor))

    def dropped(self, keep: float) -> "Mixture":
        return self._each(lambda part: part.dropped(keep))

    def statistics(self, axes: tuple[int, ...]) -> Statistics:
        return self.mixed().statistics(axes)

    def normalised(self, by: Statistics, epsilon: float) -> "Mixture":
        return self._each(lambda part: part.normalised(by, epsilon))

    def mixed(self) -> AbstractMoments:
        shares = np.asarray(self.shares)
        return jax.tree.map(
            lambda leaf: jnp.tensordot(jnp.asarray(shares, leaf.dtype), leaf, 1), self.parts
        )

    def on_grids(self, function: Callable) -> "Mixture":
        return self._each(lambda part: part.on_grids(function))

    def flattened(self) -> "Mixture":
        if not self.parts.rank:
            return self
        found = jax.vmap(lambda part: part.flattened())(self.parts)
        parts = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found.parts)
        return Mixture(parts, tuple(one * own for one in self.shares for own in found.shares))

    def _each(self, function) -> "Mixture":
        return Mixture(jax.vmap(function)(self.parts), self.shares)


class Centred(NamedTuple):
    """One side of a normalisation: the mean that is taken off, the distance of the features' own
    mean from it, and the divisor."""

    mean: Float[Array, "..."]
    from_mean: Float[Array, "..."]
    size: Float[Array, "..."]

    def second(self, second):
        """E (h - mean)^2 / size^2, given E h^2."""
        own = self.mean + self.from_mean
        return (second - own * self.mean - self.mean * self.from_mean) / self.size**2


def centred(x, mean, variance, epsilon: float) -> Centred:
    """Of features with mean x."""
    return Centred(mean, x - mean, jnp.sqrt(variance + epsilon))


def exact_diagonal(xy, xx, yy):
    """x against itself: the diagonal is known exactly, and a rule such as ReLU's slope
    (pi - angle) turns the last digit of a cosine near 1 into half of its digits."""
    if yy is not None:
        return xy
    rows = jnp.arange(xx.shape[0])
    return xy.at[rows, rows].set(xx)


def given(function: Callable, *leaves: Any) -> Any:
    """function(...) of what belongs to y, and None where x stands against itself."""
    return None if leaves[0] is None else function(*leaves)


def spread(x, second_x, y, second_y) -> Statistics:
    """Statistics, from means and second moments."""
    return Statistics(x, second_x - x**2, y, given(lambda c: c - y**2, second_y))
