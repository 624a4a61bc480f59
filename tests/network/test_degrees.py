"""Monomials, rectified ones and Hermite polynomials of any degree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import expectation

from widthwise.network import Hermite, Monomial, Polynomial, RectifiedMonomial, Relu

DEGREES = (0, 1, 2, 4, 7)
PAIRS = [(1.0, 0.3, 2.0), (0.5, -0.5, 0.5), (2.0, 2.0, 2.0), (1e-4, 9e-3, 3.0)]


@pytest.mark.parametrize("kind", [Monomial, RectifiedMonomial, Hermite])
@pytest.mark.parametrize("degree", DEGREES)
def test_dual_is_the_gaussian_expectation(kind, degree, double):
    f = kind(degree)
    kinks = (0.0,) if kind is RectifiedMonomial else ()
    for a, c, b in PAIRS:
        size = np.sqrt(float(f.dual(a, a, a)) * float(f.dual(b, b, b)))
        gap = float(f.dual(a, c, b)) - expectation(f, a, c, b, kinks)
        assert abs(gap) <= 1e-11 * size


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 8])
def test_rectified_monomial_on_the_diagonal(degree, x64):
    """Half of E[h^2n], n^2 of that one degree below, and gradients without NaN."""
    f, a = RectifiedMonomial(degree), jnp.asarray(1.7)
    odd = np.cumprod([1.0, *range(1, 17, 2)])  # (2n - 1)!!
    steep = degree**2 * 1.7 ** (degree - 1) * odd[degree - 1] / 2 if degree else 0.0
    digits = 1e-14 if x64 else 2e-6
    np.testing.assert_allclose(f.dual(a, a, a), 1.7**degree * odd[degree] / 2, rtol=digits)
    np.testing.assert_allclose(f.slope(a, a, a), steep, rtol=digits)
    for rule in (f.dual, f.slope):
        for point in ((a, a, a), (a, -a, a), (0 * a, 0 * a, a), (0 * a, 0 * a, 0 * a)):
            assert jnp.isfinite(jnp.stack(jax.grad(rule, (0, 1, 2))(*point))).all()


def test_rectified_monomial_of_degree_one_is_relu(double, rng):
    for root in rng.normal(size=(5, 2, 2)):
        (a, c), (_, b) = root @ root.T
        assert float(RectifiedMonomial(1).dual(a, c, b)) == float(Relu().dual(a, c, b))
        assert float(RectifiedMonomial(1).slope(a, c, b)) == float(Relu().slope(a, c, b))


def test_hermite_polynomials_are_orthonormal_at_unit_variance(double):
    rho = np.linspace(-1, 1, 5)
    for degree in DEGREES:
        found = [float(Hermite(degree).dual(1.0, c, 1.0)) for c in rho]
        np.testing.assert_allclose(found, rho**degree, atol=1e-14)


def test_polynomials_hold_the_others(double):
    a, c, b = PAIRS[0]
    for one, two in (
        (Polynomial((0.0, 0.0, 0.0, 1.0)), Monomial(3)),
        (Polynomial((0.0, -3 / 6**0.5, 0.0, 1 / 6**0.5)), Hermite(3)),
    ):
        assert float(one.dual(a, c, b)) == pytest.approx(float(two.dual(a, c, b)), rel=1e-14)
        assert float(one.slope(a, c, b)) == pytest.approx(float(two.slope(a, c, b)), rel=1e-14)


def test_equal_coefficients_print_alike():
    assert Polynomial([1, 2]) == Polynomial((1.0, 2.0))  # type: ignore[arg-type]
    assert repr(Polynomial((1, 2))) == "Polynomial(coefficients=(1.0, 2.0))"
