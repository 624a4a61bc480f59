"""E[f(u) f(v)] for any f: a series in the correlation, its coefficients by quadrature.

With u = sqrt(a) z and He_j the orthonormal Hermite polynomials, f(u) = sum_j f_j(a) He_j(z), and
E[f(u) f(v)] = sum_j f_j(a) f_j(b) rho^j. The coefficients depend on one input only; pairs cost a
polynomial. What the first terms leave out is known from E[f(u)^2] - sum_j f_j(a)^2.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

REACH = 9.5  # standard deviations: the normal weight beyond is 2e-21
PANELS, NODES = 24, 24  # Gauss-Legendre panels between kinks, and nodes in each


@functools.cache
def _panel() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(NODES)


def _grid(a, kinks):
    """Nodes z and normal weights on [-REACH, REACH], split where sqrt(a) z crosses a kink."""
    node, weight = (jnp.asarray(v, dtype=jnp.result_type(a)) for v in _panel())
    root = jnp.sqrt(jnp.maximum(a, jnp.finfo(jnp.result_type(a)).tiny))
    inner = [jnp.clip(kink / root, -REACH, REACH) for kink in sorted(kinks)]
    ends = jnp.stack([jnp.full_like(root, -REACH), *inner, jnp.full_like(root, REACH)])
    steps = jnp.linspace(0.0, 1.0, PANELS + 1, dtype=ends.dtype)
    edges = ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * steps
    low, high = edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1)
    half, middle = (high - low) / 2, (high + low) / 2
    z = (middle[:, None] + half[:, None] * node).reshape(-1)
    w = (half[:, None] * weight).reshape(-1) * jnp.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return root, z, w


def _coefficients(f, kinks, degree, a):
    """f_0(a) .. f_degree(a), and E[f(u)^2]."""
    root, z, w = _grid(a, kinks)
    values = f(root * z)

    def step(carry, j):
        before, now = carry
        after = (z * now - jnp.sqrt(j) * before) / jnp.sqrt(j + 1)
        return (now, after), jnp.sum(w * values * now)

    start = (jnp.zeros_like(z), jnp.ones_like(z))
    _, found = jax.lax.scan(step, start, jnp.arange(degree + 1, dtype=z.dtype))
    return found, jnp.sum(w * values**2)


def _series(left, right, rho):
    """sum_j left_j right_j rho^j by Horner's rule, one fused step a term."""

    def step(total, pair):
        return total * rho + pair[0] * pair[1], None

    total, _ = jax.lax.scan(step, jnp.zeros_like(rho * left[0] * right[0]), (left, right), reverse=True)
    return total


def _pair(f, kinks, degree, a, c, b):
    left, square_left = _coefficients(f, kinks, degree, a)
    right, square_right = _coefficients(f, kinks, degree, b)
    size = jnp.sqrt(jnp.maximum(a * b, jnp.finfo(jnp.result_type(a)).tiny))
    rho = jnp.clip(c / size, -1.0, 1.0)
    # All terms that the series leaves out, as if they stood at the next power: exact where x
    # meets itself, positive definite, and inside the stated bound elsewhere.
    rest = jnp.sqrt(
        jnp.maximum(square_left - jnp.sum(left**2), 0.0)
        * jnp.maximum(square_right - jnp.sum(right**2), 0.0)
    )
    return _series(left, right, rho) + rest * rho ** (degree + 1)


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
    bounds = []
    for function in (f, _derivative(f)):
        found, square = _coefficients(function, kinks, degree, jnp.asarray(variance, dtype=float))
        bounds.append(float(jnp.maximum(square - jnp.sum(found**2), 0.0) / square))
    return bounds[0], bounds[1]
