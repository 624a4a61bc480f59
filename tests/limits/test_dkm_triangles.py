"""Gradients of lower triangles against those that JAX finds by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slowly import cases

from widthwise.limits.dkm.triangles import misfit, taught
from widthwise.solve import float64

SIZES = cases((3, 130), (1, 400))  # one panel, three, and as many as there are
WHICH = cases([(0, 1, 2)], [((i,),) for i in range(3)])


@pytest.fixture(autouse=True)
def double():
    with float64():
        yield


def drawn(size: int, *shapes: tuple[int, ...]) -> list:
    """A covariance, and other numbers."""
    rng = np.random.default_rng(size)
    half = rng.normal(size=(size, size))
    covariance = half @ half.T / size + np.eye(size)
    return [jnp.asarray(x) for x in (covariance, *(rng.normal(size=s) for s in shapes))]


def plain(covariance, whitened):
    root = jnp.linalg.cholesky(covariance)
    turned = root @ whitened
    return root, turned, turned @ turned.T


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("which", WHICH)
def test_what_is_taught(size, which):
    covariance, whitened, *slopes = drawn(size, *((size, size),) * 4)
    whitened = jnp.tril(whitened) / size + jnp.eye(size)

    def total(function, covariance, whitened):
        found = function(covariance, whitened)
        return sum(jnp.sum(found[i] * jnp.tril(slopes[i])) for i in which)

    for one, other in zip(taught(covariance, whitened), plain(covariance, whitened), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    found, wanted = (
        jax.grad(total, argnums=(1, 2))(function, covariance, whitened)
        for function in (taught, plain)
    )
    # of a symmetric matrix only the symmetric part of a gradient is anything
    wanted = (wanted[0] + wanted[0].T) / 2, jnp.tril(wanted[1])
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12 * max(1, np.abs(other).max()))


@pytest.mark.parametrize("size", SIZES)
def test_the_likelihood(size):
    covariance, y = drawn(size, (size, 2))

    def whole(covariance, y, noise):
        level = covariance + noise * jnp.eye(size)
        fit = jnp.sum(y * jnp.linalg.solve(level, y))
        logs = jnp.linalg.slogdet(level)[1] + size * jnp.log(2 * jnp.pi)
        return (fit + 2 * logs) / 2

    asked = covariance, y, jnp.asarray(0.3)
    value, slopes = jax.value_and_grad(misfit, argnums=(0, 1, 2))(*asked)
    wanted, others = jax.value_and_grad(whole, argnums=(0, 1, 2))(*asked)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    for one, other in zip(slopes, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12 * max(1, np.abs(other).max()))


def test_singular_matrices_are_no_numbers():
    singular = -jnp.eye(2)
    assert np.isnan(taught(singular, jnp.eye(2)).gram).any()
    assert np.isnan(misfit(singular, jnp.ones((2, 1)), jnp.asarray(0.1)))
