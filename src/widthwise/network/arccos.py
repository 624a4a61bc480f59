"""Angles of pairs of Gaussians: kinked nonlinearities and error functions are made of them.

XLA has no vector instructions for inverse trigonometric functions on CPUs, and takes fifty times as
long for them as for the polynomial here, which is theirs to the last digits.
"""

import jax
import jax.numpy as jnp
import numpy as np

_DEGREE = 18  # leaves 2e-16: arcsin(s) / s is smooth in s^2 up to 1, far from this interval


def _series() -> list[float]:
    """What SERIES holds."""

    def less_one(at):  # small, so that the transform's rounding is
        root = np.sqrt((at + 1) / 4)
        return np.arcsin(root) / root - 1

    found = np.polynomial.chebyshev.chebinterpolate(less_one, _DEGREE)
    found[0] += 1
    return np.polynomial.chebyshev.cheb2poly(found).tolist()


# arcsin(s) / s as a polynomial in 4 s^2 - 1, for s^2 from 0 to 1/2; lowest power first.
SERIES = _series()


def _ratio(square):
    """arcsin(s) / s, of s^2."""
    at = square * 4 - 1
    found = jnp.full_like(at, SERIES[-1])
    for coefficient in SERIES[-2::-1]:
        found = found * at + coefficient
    return found


@jax.custom_jvp
def arcsine(x):
    """The angle from -pi / 2 to pi / 2 whose sine is x."""
    size = jnp.abs(x)
    inner = size <= 0.7
    # beyond, the angle from the end: there arcsin has a square root, and x few digits
    square = jnp.where(inner, x * x, (1 - size) / 2)
    ratio = _ratio(square)
    outer = jnp.sign(x) * (jnp.pi / 2 - 2 * jnp.sqrt(square) * ratio)
    return jnp.where(inner, x * ratio, outer)


@arcsine.defjvp
def _arcsine_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return arcsine(x), dx / jnp.sqrt((1 - x) * (1 + x))


@jax.custom_jvp
def arccosine_less(gap):
    """The angle whose cosine is 1 - gap, for gaps from 0 to 1, with all their digits."""
    return jnp.sqrt(2 * gap) * _ratio(gap / 2)


@arccosine_less.defjvp
def _arccosine_less_jvp(primals, tangents):
    (gap,), (dgap,) = primals, tangents
    return arccosine_less(gap), dgap / jnp.sqrt(gap * (2 - gap))


def angle(a, c, b):
    """(sqrt(ab - c^2), angle between u and v), without 0/0 and with finite derivatives.

    A cosine known to its last digits says nothing of angles below 4e-8 (in float64), so smaller
    ones are 0: an input and its duplicate, whose moments may differ by rounding, coincide.
    """
    # Not a * b - c * c: a compiler may fuse that into one rounding, which leaves an angle of 1e-8
    # between an input and itself.
    size = jnp.sqrt(a * b)
    gap = jnp.minimum(size - c, size + c)
    apart = gap > 8 * jnp.finfo(jnp.result_type(size)).eps * size
    gap = jnp.where(apart, gap, 1.0) / jnp.where(apart, size, 1.0)
    sine = jnp.where(apart, size * jnp.sqrt(gap * (2 - gap)), 0.0)
    least = jnp.where(apart, arccosine_less(gap), 0.0)
    theta = jnp.where(c < 0, jnp.pi - least, least)
    # An input of zeros is at a right angle to all: a step at 0 then counts half of either side.
    return sine, jnp.where(size == 0, jnp.pi / 2, theta)


@jax.custom_jvp
def rectified(a, c, b):
    """E[max(u, 0) max(v, 0)], with derivatives that are finite where u = v too."""
    sine, theta = angle(a, c, b)
    return (sine + c * (jnp.pi - theta)) / (2 * jnp.pi)


@rectified.defjvp
def _rectified_jvp(primals, tangents):
    # Plain autodiff divides by sin(angle), 0 where x meets itself. Price's theorem in all three
    # arguments: d/dc E[f f] = E[f' f'], d/da E[f f] = E[f'' f] / 2 with f'' a delta at 0.
    a, c, b = primals
    sine, theta = angle(a, c, b)
    floor = jnp.finfo(jnp.result_type(a)).tiny
    by_a, by_b = (sine / (4 * jnp.pi * jnp.maximum(s, floor)) for s in (a, b))
    da, dc, db = tangents
    value = (sine + c * (jnp.pi - theta)) / (2 * jnp.pi)
    return value, by_a * da + by_b * db + (jnp.pi - theta) / (2 * jnp.pi) * dc
