"""What a layer knows in the lazy limit: covariances and tangent kernel of pairs of inputs."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
Rule = Callable[[Scalar, Scalar, Scalar], Scalar]


class AbstractMoments(eqx.Module):
    """Layers speak to moments through these methods only, so that images and sequences can be
    other types with the same layers."""

    @abc.abstractmethod
    def affine(self, weight: "Tangent", bias: "Tangent") -> "AbstractMoments":
        """Through fresh Gaussian weights and biases."""

    @abc.abstractmethod
    def pointwise(self, dual: Rule, slope: Rule) -> "AbstractMoments":
        """Through a nonlinearity, given its rules for one pair of inputs."""

    @abc.abstractmethod
    def add(self, other: "AbstractMoments") -> "AbstractMoments":
        """The sum of two signals that are uncorrelated given the inputs."""

    @abc.abstractmethod
    def times(self, factor: float) -> "AbstractMoments":
        """The signal multiplied by a number."""


class Tangent(eqx.Module):
    """What the limit sees of one weight: how it passes covariances and tangent kernels on.

    `variance` times the covariance before it is that after it; `tangent` times it is the weight's
    own share in the tangent kernel; `carry` times the tangent kernel before it is what remains of
    the earlier weights' shares. Where the initial function vanishes in the limit, `variance` is 0
    and `carry` is not: earlier weights step further by what it shrinks.
    """

    variance: float | Scalar
    tangent: float | Scalar
    carry: float | Scalar


class Moments(AbstractMoments):
    """Moments of vectors: x of n rows against y of m rows, or x against itself (`yy` is None).

    >>> Moments.of(jnp.ones((3, 5))).xy.shape
    (3, 3)

    `xy` holds E[h(x) h(y)] a feature, `xx` and `yy` the same of each input with itself, `ntk`
    the tangent kernel. Inputs enter as (1 / d) x.y, uncentred.
    """

    xx: Float[Array, " n"]
    xy: Float[Array, "n m"]
    yy: Float[Array, " m"] | None
    ntk: Float[Array, "n m"]

    @classmethod
    def of(cls, x: Float[Array, "n d"], y: Float[Array, "m d"] | None = None) -> "Moments":
        x = jnp.asarray(x)
        other = x if y is None else jnp.asarray(y)
        xy = x @ other.T / x.shape[1]
        xx = jnp.sum(x * x, axis=1) / x.shape[1]
        yy = None if y is None else jnp.sum(other * other, axis=1) / x.shape[1]
        return cls(xx, cls._exact_diagonal(xy, xx, yy), yy, jnp.zeros_like(xy))

    @staticmethod
    def _exact_diagonal(xy, xx, yy):
        # x against itself: the diagonal is known exactly, and a rule such as ReLU's slope
        # (pi - angle) turns the last digit of a cosine near 1 into half of its digits.
        if yy is not None:
            return xy
        rows = jnp.arange(xx.shape[0])
        return xy.at[rows, rows].set(xx)

    def affine(self, weight: Tangent, bias: Tangent) -> "Moments":
        def through(c):
            return weight.variance * c + bias.variance

        ntk = weight.carry * self.ntk + weight.tangent * self.xy + bias.tangent
        yy = None if self.yy is None else through(self.yy)
        return Moments(through(self.xx), through(self.xy), yy, ntk)

    def pointwise(self, dual: Rule, slope: Rule) -> "Moments":
        # This is the one place where rules for one pair meet many pairs. What depends on x
        # alone or on y alone stays outside the inner loop: vmap sees to it.
        def pairs(rule):
            columns = jax.vmap(rule, (None, 0, 0))
            return jax.vmap(columns, (0, 0, None))(
                self.xx, self.xy, self.xx if self.yy is None else self.yy
            )

        alone = jax.vmap(lambda a: dual(a, a, a))
        xx = alone(self.xx)
        yy = None if self.yy is None else alone(self.yy)
        ntk = self.ntk * pairs(slope)
        return Moments(xx, self._exact_diagonal(pairs(dual), xx, yy), yy, ntk)

    def add(self, other: AbstractMoments) -> "Moments":
        assert isinstance(other, Moments)
        yy = None if self.yy is None or other.yy is None else self.yy + other.yy
        return Moments(self.xx + other.xx, self.xy + other.xy, yy, self.ntk + other.ntk)

    def times(self, factor: float) -> "Moments":
        return jax.tree.map(lambda entry: factor**2 * entry, self)
