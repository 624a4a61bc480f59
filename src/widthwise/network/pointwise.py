"""What a pointwise nonlinearity is: base classes, by what is known of its dual."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from widthwise.network.hermite import gaussian_mean, hermite_dual, hermite_slope, tail
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import Rules, Scalar
from widthwise.network.signal import Signal


class AbstractDual(AbstractLayer):
    """Says what happens to one pair of Gaussian inputs; moments do the rest."""

    source: ClassVar[str]  # "bibkey, equation": printed in reports

    @abc.abstractmethod
    def dual(self, a: Scalar, c: Scalar, b: Scalar) -> Scalar:
        """E[f(u) f(v)] where (u, v) ~ N(0, [[a, c], [c, b]])."""

    @abc.abstractmethod
    def slope(self, a: Scalar, c: Scalar, b: Scalar) -> Scalar:
        """E[f'(u) f'(v)]: the derivative of `dual` in c (Price's theorem), unless f jumps."""

    @abc.abstractmethod
    def mean(self, a: Scalar) -> Scalar:
        """E[f(u)]."""

    def signal(self, incoming: Signal) -> Signal:
        if incoming.gaussian is False:
            raise ValueError(
                f"{self!r} does not follow an affine layer, so what reaches it is not Gaussian at "
                "infinite width: put Dense() in front of it, or write two functions in a row as "
                "one Elementwise function."
            )
        return incoming.remade(incoming.size, False)

    def weights(self, incoming: Signal):
        return None

    def kernel(self, weights, moments):
        return moments.pointwise(Rules(self.dual, self.slope, self.mean))

    def fresh(self) -> bool:
        return False


class AbstractNonlinearity(AbstractDual):
    """A function of one number, applied entry by entry."""

    @abc.abstractmethod
    def __call__(self, h: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The function itself, entry by entry."""

    def apply(self, weights, x):
        return self(x)

    def mean(self, a: Scalar) -> Scalar:
        """E[f(u)], by quadrature; a kink at 0 needs no care."""
        return gaussian_mean(self, (), a)


class AbstractSmooth(AbstractNonlinearity):
    """For duals that can be differentiated everywhere: the slope comes for free."""

    def slope(self, a, c, b):
        return jax.grad(self.dual, argnums=1)(a, c, b)


class AbstractQuadrature(AbstractNonlinearity):
    """For functions without a closed form: say `__call__`, and `kinks` where it is not smooth.

    Dual and slope are Hermite series whose coefficients are quadratures of the function;
    `error` states what the series leaves out.
    """

    degree: eqx.AbstractVar[int]
    kinks: eqx.AbstractVar[tuple[float, ...]]

    def mean(self, a):
        return gaussian_mean(self, self.kinks, a)

    def dual(self, a, c, b):
        return hermite_dual(self, self.kinks, self.degree, a, c, b)

    def slope(self, a, c, b):
        return hermite_slope(self, self.kinks, self.degree, a, c, b)

    def error(self, variance: float) -> tuple[float, float]:
        """Bounds on the series errors of dual and slope, relative to their diagonals, for inputs
        of this variance (of two variances: twice the geometric mean of the two bounds). There is
        none where y is x or -x. Kinks that are not named are not in the bounds.

        >>> Tanh().error(1.0)[0] < 1e-12
        True
        """
        return tail(self, self.kinks, self.degree, variance)
