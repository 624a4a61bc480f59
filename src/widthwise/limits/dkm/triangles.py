"""Gram matrices and likelihoods of lower triangles, with gradients that read nothing but these.

The gradient of a Cholesky factor, as JAX has it, multiplies whole matrices and takes as long as ten
factors. Here products of triangles go by panels of columns, in each of which only the rows and the
terms of the sum are that are not zero: a third or a sixth of the operations.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from widthwise.limits.noise import negative_evidence

PANELS = 6  # at most
LEAST = 64  # columns of a panel, at least


class Taught(NamedTuple):
    """A root R of a prior covariance, R T, and the Gram matrix R T T^T R^T."""

    root: Float[Array, "n n"]
    turned: Float[Array, "n n"]
    gram: Float[Array, "n n"]


@jax.custom_vjp
def taught(covariance: Float[Array, "n n"], whitened: Float[Array, "n n"]) -> Taught:
    """The Gram matrix of a lower triangle T (`whitened`) in units of a prior covariance.

    >>> taught(jnp.array([[4.0, 2.0], [2.0, 2.0]]), jnp.eye(2)).root.tolist()
    [[2.0, 0.0], [1.0, 1.0]]

    Of the covariance, which is symmetric, the lower triangle is read; not numbers where it has no
    factor.
    """
    root = jax.lax.linalg.cholesky(covariance, symmetrize_input=False)
    turned = _from(root, whitened)
    return Taught(root, turned, _mirrored(_up_to(turned, turned)))


def _taught_forwards(covariance, whitened):
    found = taught(covariance.value, whitened.value)
    return found, (found.root, whitened.value, found.turned)


def _taught_backwards(kept, slopes: Taught):
    """The chain rule of turned = R T and gram = turned turned^T, then that of K = R R^T.

    Murray, "Differentiation of the Cholesky decomposition" (2016): with the slope r of R,
    that of K is the symmetric part of R^-T (tril(R^T r), half its diagonal) R^-1. What R has from
    turned's slope t is t T^T, of which R^T t, which is the slope of T, is a part.
    """
    root, whitened, turned = kept
    slope = jnp.zeros_like(root) if isinstance(slopes.turned, SymbolicZero) else slopes.turned
    if not isinstance(slopes.gram, SymbolicZero):
        slope += _from(slopes.gram + slopes.gram.T, turned)
    of_whitened = _from(root.T, slope)
    inner = _up_to(of_whitened, whitened)
    if not isinstance(slopes.root, SymbolicZero):
        inner += _from(root.T, slopes.root)
    inner = jnp.tril(inner, -1) + jnp.diag(jnp.diagonal(inner) / 2)
    half = jax.scipy.linalg.solve_triangular(root, inner, lower=True, trans="T")
    whole = jax.scipy.linalg.solve_triangular(root, half.T, lower=True, trans="T")
    return (whole + whole.T) / 2, jnp.tril(of_whitened)


taught.defvjp(_taught_forwards, _taught_backwards, symbolic_zeros=True)


@jax.custom_vjp
def misfit(
    output: Float[Array, "n n"], y: Float[Array, "n k"], noise: Float[Array, ""]
) -> Float[Array, ""]:
    """-log p(y) of outputs with this covariance and noise: not a number if they are singular.

    >>> float(misfit(jnp.zeros((2, 2)), jnp.ones((2, 1)), jnp.array(1.0))).__round__(6)
    2.837877
    """
    return _misfit_forwards(output, y, noise)[0]


def _misfit_forwards(output, y, noise):
    covariance = output + noise * jnp.eye(len(output))
    lower = jax.lax.linalg.cholesky(covariance, symmetrize_input=False)
    unit = jnp.eye(len(lower), dtype=lower.dtype)
    inverse = jax.scipy.linalg.solve_triangular(lower, unit, lower=True)
    half = inverse @ y
    logs = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
    return negative_evidence(jnp.sum(half**2), logs, y), (inverse, half)


def _misfit_backwards(kept, slope):
    inverse, half = kept
    weights = inverse.T @ half
    among = _mirrored(_from(inverse.T, inverse))
    of_output = slope / 2 * (half.shape[1] * among - weights @ weights.T)
    return of_output, slope * weights, jnp.trace(of_output)


misfit.defvjp(_misfit_forwards, _misfit_backwards)


def _panels(count: int) -> list[tuple[int, int]]:
    """Where each begins and ends."""
    size = max(-(-count // PANELS), LEAST)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _stacked(panels: list[Any], count: int) -> Float[Array, "n n"]:
    """Columns side by side, with zeros above each."""
    return jnp.concatenate([jnp.pad(p, ((count - len(p), 0), (0, 0))) for p in panels], axis=1)


# The following are right in the lower triangle, and above it only beside a triangle's zeros.


def _from(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """A B of a lower B, or of an upper A: sums begin at the column."""
    n = len(a)
    return _stacked([a[start:, start:] @ b[start:, start:end] for start, end in _panels(n)], n)


def _up_to(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """A B^T of a lower B: sums end at the column."""
    n = len(a)
    return _stacked([a[start:, :end] @ b[start:end, :end].T for start, end in _panels(n)], n)


def _mirrored(lower: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The symmetric matrix of a lower triangle."""
    below = jnp.tril(lower, -1)
    return below + below.T + jnp.diag(jnp.diagonal(lower))
