"""Nonlinearities by quadrature: against closed forms, inside the errors that they state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.network import Elementwise, Erf, Gelu, LeakyRelu, Relu, Sigmoid, Swish, Tanh

RHO = np.array([-1.0, -0.999, -0.9, -0.5, 0.0, 0.3, 0.8, 0.99, 1.0])


def both(f):
    return lambda a, c, b: (f.dual(a, c, b), f.slope(a, c, b))


@pytest.mark.parametrize("degree", [24, 161])
@pytest.mark.parametrize("closed", [Erf(), Gelu(), LeakyRelu(0.2)], ids=repr)
def test_stated_error_bounds_the_true_error(closed, degree, double):
    smooth = isinstance(closed, Erf | Gelu)
    series = Elementwise(fn=closed, kinks=() if smooth else (0.0,), degree=degree)
    exact, approximate = (jax.jit(jax.vmap(both(f))) for f in (closed, series))
    for a, b in ((0.1, 0.1), (1.0, 1.0), (20.0, 20.0), (0.5, 8.0)):
        a_, b_ = np.full_like(RHO, a), np.full_like(RHO, b)
        args = (a_, RHO * np.sqrt(a * b), b_)
        results = [*exact(*args)], [*approximate(*args)], exact(a_, a_, a_), exact(b_, b_, b_)
        for which, (true, found, left, right) in enumerate(zip(*results, strict=True)):
            bound = np.sqrt(series.error(a)[which] * series.error(b)[which])
            gap = np.abs(true - found) / np.sqrt(left * right)
            assert (gap <= (1 if a == b else 2) * bound + 1e-12).all(), (which, a, b, gap, bound)
            if a == b:  # x with itself, and with its mirror: nothing is left out
                assert gap[0] < 1e-12 and gap[-1] < 1e-12, (which, a, gap)


def test_stated_error_is_no_exaggeration(double):
    series = Elementwise(fn=Relu(), kinks=(0.0,), degree=24)
    rho = jnp.linspace(-1, 1, 201)
    one = jnp.ones_like(rho)
    gap = jnp.abs(jax.vmap(series.slope)(one, rho, one) - jax.vmap(Relu().slope)(one, rho, one))
    assert 0.1 < float(gap.max()) / (series.error(1.0)[1] * 0.5) <= 1


@pytest.mark.parametrize("f", [Tanh(), Sigmoid(), Swish()], ids=repr)
def test_usual_variances_are_exact_to_eight_digits(f):
    """Also stated with JAX's switch off, where float32 could not tell."""
    for variance in (0.05, 0.5, 1.0, 2.0):
        assert max(f.error(variance)) < 1e-8
    assert max(f.error(0.5)) < 1e-13
    assert f.error(4.0)[0] < 1e-8 and f.error(4.0)[1] < 2e-6


def test_error_falls_with_the_degree():
    errors = [Elementwise(fn=jnp.tanh, degree=degree).error(9.0)[1] for degree in (20, 80, 320)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
