"""E[f(u) f(v)] for any f: a series in the correlation, its coefficients by quadrature.

With u = sqrt(a) z and He_j the orthonormal Hermite polynomials, f(u) = sum_j f_j(a) He_j(z), and
E[f(u) f(v)] = sum_j f_j(a) f_j(b) rho^j. The coefficients depend on one input only; pairs cost a
polynomial. What the first terms leave out is known from E[f(u)^2] - sum_j f_j(a)^2.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.solve.precision import float64

REACH = 9.5  # standard deviations: the normal weight beyond is 2e-21
PANELS, NODES = 24, 24  # Gauss-Legendre panels between kinks, and nodes in each


class _Expansion(NamedTuple):
    """Coefficients f_0 .. f_degree, and E[f^2] of the function's even and odd part."""

    found: Float[Array, " terms"]
    even: Float[Array, ""]
    odd: Float[Array, ""]

    def left_out(self):
        """What the terms of even and of odd power leave out of E[f^2]."""
        squares = self.found**2
        return self.even - jnp.sum(squares[::2]), self.odd - jnp.sum(squares[1::2])


@functools.cache
def _panel() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(NODES)


def _grid(a, kinks):
    """Nodes z and normal weights on [-REACH, REACH], split where sqrt(a) |z| crosses a kink."""
    node, weight = (jnp.asarray(v, dtype=jnp.result_type(a)) for v in _panel())
    root = jnp.sqrt(jnp.maximum(a, jnp.finfo(jnp.result_type(a)).tiny))
    mirrored = sorted({sign * kink for kink in kinks for sign in (-1.0, 1.0)})
    inner = [jnp.clip(kink / root, -REACH, REACH) for kink in mirrored]
    ends = jnp.stack([jnp.full_like(root, -REACH), *inner, jnp.full_like(root, REACH)])
    steps = jnp.linspace(0.0, 1.0, PANELS + 1, dtype=ends.dtype)
    edges = ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * steps
    low, high = edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1)
    half, middle = (high - low) / 2, (high + low) / 2
    z = (middle[:, None] + half[:, None] * node).reshape(-1)
    w = (half[:, None] * weight).reshape(-1) * jnp.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return root, z, w


def gaussian_mean(f, kinks, a):
    """E[f(u)]; 0 is an edge of the panels, a kink there needs no name."""
    root, z, w = _grid(a, kinks)
    return jnp.sum(w * f(root * z))


def _expand(f, kinks, degree, a) -> _Expansion:
    root, z, w = _grid(a, kinks)
    values, mirrored = f(root * z), f(-root * z)

    def step(carry, j):
        before, now = carry
        after = (z * now - jnp.sqrt(j) * before) / jnp.sqrt(j + 1)
        return (now, after), jnp.sum(w * values * now)

    start = (jnp.zeros_like(z), jnp.ones_like(z))
    _, found = jax.lax.scan(step, start, jnp.arange(degree + 1, dtype=z.dtype))
    even, odd = (values + mirrored) / 2, (values - mirrored) / 2
    return _Expansion(found, jnp.sum(w * even**2), jnp.sum(w * odd**2))


def _series(left, right, rho):
    """sum_j left_j right_j rho^j by Horner's rule, one fused step a term."""

    def step(total, pair):
        return total * rho + pair[0] * pair[1], None

    start = jnp.zeros_like(rho * left[0] * right[0])
    total, _ = jax.lax.scan(step, start, (left, right), reverse=True)
    return total


def _root(x):
    """The square root, with derivative 0 instead of infinity where nothing is left."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def _pair(f, kinks, degree, a, c, b):
    left, right = _expand(f, kinks, degree, a), _expand(f, kinks, degree, b)
    size = jnp.sqrt(jnp.maximum(a * b, jnp.finfo(jnp.result_type(a)).tiny))
    rho = c / size
    # into [-1, 1], but with the derivative of c / size there as well
    rho = rho + jax.lax.stop_gradient(jnp.clip(rho, -1.0, 1.0) - rho)
    # What the series leaves out stands at the next power of its parity: exact where y is x or
    # -x, positive definite, and within the stated bound elsewhere.
    powers = (degree + 1, degree + 2) if degree % 2 else (degree + 2, degree + 1)
    total = _series(left.found, right.found, rho)
    for power, one, other in zip(powers, left.left_out(), right.left_out(), strict=True):
        total = total + _root(one) * _root(other) * rho**power
    return total


def _derivative(f):
    return jax.vmap(jax.grad(f))


def hermite_dual(f, kinks, degree, a, c, b):
    """E[f(u) f(v)]."""
    return _pair(f, kinks, degree, a, c, b)


def hermite_slope(f, kinks, degree, a, c, b):
    """E[f'(u) f'(v)]."""
    return _pair(_derivative(f), kinks, degree, a, c, b)


def tail(f, kinks, degree, variance: float) -> tuple[float, float]:
    """What dual and slope leave out at most, relative to their diagonals."""
    with float64():
        dual, slope = _tails(f, kinks, degree, jnp.asarray(variance, dtype=float))
    return float(dual), float(slope)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _tails(f, kinks, degree, a):
    bounds = []
    for function in (f, _derivative(f)):
        found = _expand(function, kinks, degree, a)
        left_out = sum(jnp.maximum(part, 0.0) for part in found.left_out())
        whole = found.even + found.odd
        # a function that is 0 wherever the input can be leaves nothing out
        bounds.append(jnp.where(whole > 0, left_out / jnp.where(whole > 0, whole, 1.0), 0.0))
    return bounds
