"""The normalised exponential: its limit, and the network of finite width that has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import expectation

from widthwise.finite import FiniteNetwork
from widthwise.kernels import kernel_matrix
from widthwise.network import Dense, ExpNormalized, Readout
from widthwise.scaling import NTK

F = ExpNormalized(gamma=0.8, shift=-0.7)


def test_rules_are_expectations_at_unit_variance(double):
    """There the layer is a function of one number; at others, sizes factor out."""

    def profile(h):
        return jnp.exp(jnp.sqrt(0.8) * h + 0.8 * (-0.7 - 1) / 2)

    for cosine in (-1.0, -0.4, 0.0, 0.9, 1.0):
        wanted = expectation(profile, 1.0, cosine, 1.0)
        a, b = 0.3, 40.0
        c, size = cosine * np.sqrt(a * b), np.sqrt(a * b)
        assert float(F.dual(1.0, cosine, 1.0)) == pytest.approx(wanted, rel=1e-11)
        assert float(F.dual(a, c, b)) == pytest.approx(size * wanted, rel=1e-11)
        # its derivative is sqrt(gamma) times itself
        assert float(F.slope(a, c, b)) == pytest.approx(0.8 * wanted, rel=1e-11)
        assert float(jax.grad(F.dual, 1)(a, c, b)) == pytest.approx(0.8 * wanted, rel=1e-11)


def test_gradients_are_finite(double):
    for point in ((0.7, 0.7, 0.7), (0.7, -0.7, 0.7), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)):
        for rule in (F.dual, F.slope):
            assert jnp.isfinite(jnp.stack(jax.grad(rule, (0, 1, 2))(*point))).all()


def test_rows_of_zeros_stay_zeros():
    value, slope = jax.value_and_grad(lambda x: jnp.sum(F.apply(None, x)))(jnp.zeros(4))
    assert value == 0 and (slope == 0).all()
    kernel = kernel_matrix(Dense() >> F >> Readout(bias_multiplier=0.0), np.eye(3)[:, :2])
    assert kernel.nngp[2, 2] == 0 and np.isfinite(kernel.ntk).all()


@pytest.mark.slow
def test_wide_networks_have_both_kernels(rng, getkey):
    """Gaps to the tangent kernel fall like n^-1/2: what the size lets all features do at once is
    among what vanishes."""
    x, seeds = rng.normal(size=(4, 3)), 24
    # at the default of 1, fourth moments are e^4 times the squares of second ones
    net = Dense(bias_variance=0.1) >> ExpNormalized(gamma=0.25) >> Readout(weight_variance=1.0)
    limit, rows, gaps = kernel_matrix(net, x).ntk, jnp.asarray(x, "float32"), []
    for width in (64, 1024):
        finite = FiniteNetwork(net, width, 3, 1, NTK())

        @jax.jit
        @jax.vmap
        def tangent(parameters, finite=finite):
            jacobian = jax.jacrev(lambda p: finite.apply(p, rows)[:, 0])(parameters)
            flat = [j.reshape(len(rows), -1) for j in jax.tree.leaves(jacobian)]
            return sum(j @ j.T for j in flat)

        drawn = [finite.draw(getkey()) for _ in range(seeds)]
        found = np.asarray(tangent(jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)))
        gaps.append(np.sqrt(np.mean((found - limit) ** 2)))
        bias = np.sqrt(np.mean((found.mean(axis=0) - limit) ** 2))
        assert bias < 3 * gaps[-1] / np.sqrt(seeds), "the mean over draws is the limit"
    assert -0.7 < np.log(gaps[1] / gaps[0]) / np.log(16) < -0.3, gaps
