"""Functions that are powers on either side of zero, with a kink or a jump there."""

import abc
import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.arccos import angle, rectified
from widthwise.network.pointwise import AbstractNonlinearity


class AbstractKinked(AbstractNonlinearity):
    """Straight on either side of 0: a line and a multiple of max(h, 0)."""

    source: ClassVar[str] = "cho2009, eqs. (5) and (6), n = 0 and 1"

    @property
    @abc.abstractmethod
    def parts(self) -> tuple[float, float]:
        """(l, k) of the dual l c + k E[max(u, 0) max(v, 0)]. Of a h + b max(h, 0) they are
        a (a + b) and b^2, for E[u max(v, 0)] = c / 2."""

    def dual(self, a, c, b):
        linear, kinked = self.parts
        return linear * c + kinked * rectified(a, c, b)

    def slope(self, a, c, b):
        linear, kinked = self.parts
        return linear + kinked * (jnp.pi - _theta(a, c, b)) / (2 * jnp.pi)


class LeakyRelu(AbstractKinked):
    """max(h, 0) + leak * min(h, 0).

    >>> LeakyRelu(0.1)(jnp.array([-1.0, 2.0])).tolist()
    [-0.10000000149011612, 2.0]
    """

    leak: float = 0.01

    def __check_init__(self):
        settings.number(self, "leak")

    def __call__(self, h):
        return jnp.where(h > 0, h, self.leak * h)

    @property
    def parts(self):
        return self.leak, (1 - self.leak) ** 2


class Relu(AbstractKinked):
    """max(h, 0)."""

    def __call__(self, h):
        return jnp.where(h > 0, h, 0.0)

    @property
    def parts(self):
        return 0.0, 1.0


class Abs(AbstractKinked):
    """|h|."""

    def __call__(self, h):
        return jnp.where(h > 0, h, -h)

    @property
    def parts(self):
        return -1.0, 4.0  # |h| = 2 max(h, 0) - h


class ABRelu(AbstractKinked):
    """a * min(h, 0) + b * max(h, 0).

    >>> ABRelu(-0.5, 2.0)(jnp.array([-1.0, 1.0])).tolist()
    [0.5, 2.0]

    Args:
        a, b: slopes below and above zero.
    """

    source: ClassVar[str] = "cho2009, eqs. (5) and (6), n = 0 and 1; liao2018, Table 1"
    a: float = 0.0
    b: float = 1.0

    def __check_init__(self):
        for name in "ab":
            settings.number(self, name)

    def __call__(self, h):
        return jnp.where(h > 0, self.b * h, self.a * h)

    @property
    def parts(self):
        return self.a * self.b, (self.b - self.a) ** 2


class Sign(AbstractNonlinearity):
    """-1, 0 or 1: the sign of h.

    >>> Sign()(jnp.array([-2.0, 0.0, 0.5])).tolist()
    [-1.0, 0.0, 1.0]

    Its derivative is 0 wherever there is one, so the weights in front of it get no gradient, at
    any width: `slope` is 0. (The derivative of `dual` in c is not, for it sees the jump.)
    """

    source: ClassVar[str] = "liao2018, Table 1"

    def __call__(self, h):
        return jnp.sign(h)

    def dual(self, a, c, b):
        return 1 - 2 * _theta(a, c, b) / jnp.pi

    def slope(self, a, c, b):
        return jnp.zeros_like(c)


class RectifiedMonomial(AbstractNonlinearity):
    """max(h, 0) ** degree; of degree 0 the step from 0 over 1/2 to 1.

    >>> RectifiedMonomial(3)(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 8.0]

    Its dual is the arc-cosine kernel of that degree. Of degree 0, `slope` is 0 as for `Sign`.
    """

    source: ClassVar[str] = "cho2009, eqs. (3) and (4)"
    degree: int = eqx.field(default=2, static=True)

    def __check_init__(self):
        settings.whole(self, "degree", low=0)

    def __call__(self, h):
        if self.degree == 0:
            return (1 + jnp.sign(h)) / 2
        return jnp.where(h > 0, h, 0.0) ** self.degree

    def dual(self, a, c, b):
        return _rectified_power(self.degree, a, c, b)

    def slope(self, a, c, b):
        if self.degree == 0:
            return jnp.zeros_like(c)
        return self.degree**2 * _rectified_power(self.degree - 1, a, c, b)


def _rectified_power(n: int, a, c, b):
    """E[u^n v^n where u, v > 0]."""
    if n == 0:
        return (jnp.pi - _theta(a, c, b)) / (2 * jnp.pi)
    return rectified(a, c, b) if n == 1 else _arccosine(n, a, c, b)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _arccosine(n, a, c, b):
    size, kernels = _arccosines(n, a, c, b)[:2]
    return size**n * kernels[n] / (2 * jnp.pi)


@_arccosine.defjvp
def _arccosine_jvp(n, primals, tangents):
    # As for `rectified`: autodiff divides by sin(angle). Price's theorem in all three arguments,
    # d/da E[f f] = E[f'' f] / 2, where E[u^(n-2) v^n] follows from the recurrence.
    a, c, b = primals
    da, dc, db = tangents
    size, kernels, cosine, sine = _arccosines(n, a, c, b)
    mixed = size ** (n - 2) * (cosine * kernels[n - 1] + (n - 1) * sine**2 * kernels[n - 2])
    steep = n**2 * size ** (n - 1) * kernels[n - 1] * dc
    bend = n * (n - 1) / 2 * mixed * (b * da + a * db)
    return _arccosine(n, a, c, b), (steep + bend) / (2 * jnp.pi)


def _arccosines(n: int, a, c, b):
    """sqrt(ab), J_0 .. J_n of Cho and Saul, cosine and sine.

    J_(k+1) = (2k + 1) cos J_k + k^2 sin^2 J_(k-1): with it J_n, which is made by differentiating
    something over sin(angle), needs no division, and is exact where x meets itself.
    """
    sine, theta = angle(a, c, b)
    positive = a * b > 0
    unit = jnp.sqrt(jnp.where(positive, a * b, 1.0))
    cosine, sine = c / unit, sine / unit
    kernels = [jnp.pi - theta, sine + cosine * (jnp.pi - theta)]
    for k in range(1, n):
        kernels.append((2 * k + 1) * cosine * kernels[k] + (k * sine) ** 2 * kernels[k - 1])
    return jnp.where(positive, unit, 0.0), kernels, cosine, sine


def _theta(a, c, b):
    """The angle between u and v; a right one, with derivative 0, where one of them is 0."""
    # the square root in `angle` has no derivative at 0
    positive = a * b > 0
    a, b = (jnp.where(positive, variance, 1.0) for variance in (a, b))
    return angle(a, jnp.where(positive, c, 0.0), b)[1]
