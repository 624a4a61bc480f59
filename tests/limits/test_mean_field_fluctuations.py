"""Fluctuations of finite networks: closed forms, and ensembles."""

from typing import Any

import jax
import numpy as np
import pytest

from widthwise.finite import FiniteNetwork, train
from widthwise.learner import GradientDescent
from widthwise.limits.mean_field import DynamicalMeanField
from widthwise.limits.mean_field.fluctuations import fluctuations, initial_fluctuations
from widthwise.network import Dense, Readout, Relu, Tanh
from widthwise.problem import Problem
from widthwise.scaling import MuP
from widthwise.solve import float64

UNIT: Any = dict(weight_variance=1.0, bias_multiplier=0.0)
RELU: Any = dict(weight_variance=2.0, bias_multiplier=0.0)
ONE = Problem(np.ones((1, 1)), np.ones((1, 1)), np.empty((0, 1)), np.empty((0, 1)), 0.0, "")


@pytest.mark.parametrize("gamma0", [0.1, 1.0, 3.0])
def test_one_row_and_a_linear_network(gamma0):
    """Its output and kernel obey a closed recursion at every width, so that widths scatter through
    the start only: variances 1 / gamma0^2 and 4 over the width, and no covariance."""
    lr, steps = 0.08, 12

    def follow(start):
        f, kernel = start
        found = []
        for _ in range(steps):
            found.append(f)
            delta = 1 - f
            square = (lr * gamma0 * delta) ** 2
            f, kernel = (
                f + lr * kernel * delta + square * f,
                kernel + 4 * lr * gamma0**2 * f * delta + square * kernel,
            )
        return jax.numpy.stack([*found, f]), kernel

    limit = DynamicalMeanField(
        Dense(**UNIT) >> Readout(**UNIT), MuP(gamma0), GradientDescent(lr=lr, steps=steps),
        samples=60_000,
    )  # fmt: skip
    found = fluctuations(limit, ONE)
    with float64():
        start = jax.numpy.array([0.0, 2.0])
        path, kernel = map(np.asarray, follow(start))
        outs, last = map(np.asarray, jax.jacobian(follow)(start))
    start_variance = np.diag([1 / gamma0**2, 4.0])
    np.testing.assert_allclose(found.predictions[:, 0], path, atol=1e-7)
    np.testing.assert_allclose(found.kernel, [[kernel]], rtol=1e-6)
    expected = outs @ start_variance @ outs.T
    size = np.abs(expected).max()
    np.testing.assert_allclose(found.covariance[:, 0, :, 0], expected, atol=0.03 * size)
    np.testing.assert_allclose(
        found.kernel_covariance[0, 0, 0, 0], last @ start_variance @ last, rtol=0.05
    )


def ensemble_problem() -> Problem:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((5, 4)), np.sign(rng.standard_normal((5, 1)))
    return Problem(x[:3], y[:3], x[3:], y[3:], 0.0, "regression")


@pytest.mark.slow
def test_ensembles_of_trained_networks(capsys):
    """Biases, mini-batches and a test row; variances at the end of training."""
    data, width, seeds = ensemble_problem(), 512, 600
    network = Dense(bias_variance=0.2, bias_multiplier=0.5) >> Tanh() >> Readout()
    learner = GradientDescent(lr=0.3, steps=25, batch_size=2)
    limit = DynamicalMeanField(network, MuP(1.5), learner, samples=40_000)
    found = fluctuations(limit, data, order=3)
    net = FiniteNetwork(network, width, 4, 1, MuP(1.5))
    outs = np.stack(
        [
            train(net, data, learner, lr=0.3, seed=seed, order=3, logs=3)[1].predictions[:, :, 0]
            for seed in range(seeds)
        ]
    )
    measured = width * outs[:, -1].var(axis=0, ddof=1)
    stated = np.diagonal(found.covariance[-1, :, -1])[3:]
    with capsys.disabled():
        print(f"\nwidth times variance: {measured.round(3)}, stated {stated.round(3)}")
    np.testing.assert_allclose(measured, stated, rtol=0.2)
    at_start = np.diagonal(found.covariance[0, :, 0])[3:]
    assert (stated > 1.2 * at_start).all()  # not the initial function's alone
    together = width * np.cov(outs[:, -1].T)[0, 1]
    assert abs(together - found.covariance[-1, 3, -1, 4]) < 0.2 * stated.max()


@pytest.mark.parametrize("activation, each", [(Relu(), 5 / 4), (None, 2.0)], ids=["relu", "linear"])
def test_kernels_of_deep_networks_at_initialisation(activation, each):
    """Every layer adds the same: N Cov = V min(l, l'). ReLU features have mean square 1/2."""
    layer = Dense(**(UNIT if activation is None else RELU))
    network = layer if activation is None else layer >> activation
    for _ in range(3):
        network = network >> layer if activation is None else network >> layer >> activation
    x = np.ones((1, 1)) if activation is None else np.full((1, 1), 0.5**0.5)
    found = initial_fluctuations(network >> Readout(), MuP(), x, samples=1 << 19)
    levels = np.arange(1, 5)
    expected = each * np.minimum.outer(levels, levels)
    np.testing.assert_allclose(found[:, 0, 0, :, 0, 0], expected, rtol=0.05)


@pytest.mark.slow
def test_kernels_of_drawn_networks():
    """Two rows, biases: covariances of all entries of both layers' kernels, over 3,000 draws."""
    rng = np.random.default_rng(0)
    x, width = rng.standard_normal((2, 3)), 128
    layer = Dense(weight_variance=1.5, bias_variance=0.3, bias_multiplier=0.5)
    network = layer >> Tanh() >> layer >> Tanh() >> Readout()
    net = FiniteNetwork(network, width, 3, 1, MuP())

    @jax.jit
    @jax.vmap
    def kernels(seed):
        features = net.features(net.draw(jax.random.key(seed)), jax.numpy.asarray(x, "float32"))
        return jax.numpy.stack([h @ h.T / width for h in features.values()])

    drawn = np.asarray(kernels(np.arange(3000, dtype=np.int32)), np.float64)
    measured = width * np.cov(drawn.reshape(3000, -1), rowvar=False).reshape(2, 2, 2, 2, 2, 2)
    found = initial_fluctuations(network, MuP(), x)
    np.testing.assert_allclose(measured, found, atol=0.12 * np.abs(found).max())


def test_what_is_not_known_is_refused():
    deep = Dense() >> Tanh() >> Dense() >> Tanh() >> Readout()
    shallow = Dense() >> Tanh() >> Readout()
    settled = GradientDescent(lr=0.1, steps=5)
    with pytest.raises(ValueError, match="one hidden layer"):
        fluctuations(DynamicalMeanField(deep, MuP(), settled), ONE)
    heavy = GradientDescent(lr=0.1, steps=5, momentum=0.5)
    with pytest.raises(ValueError, match="leave out momentum"):
        fluctuations(DynamicalMeanField(shallow, MuP(), heavy), ONE)
    long = GradientDescent(lr=0.1, steps=5000)
    with pytest.raises(MemoryError, match="fewer rows or steps"):
        fluctuations(DynamicalMeanField(shallow, MuP(), long), ONE)
    with pytest.raises(ValueError, match="linearly dependent"):
        initial_fluctuations(deep, MuP(), np.ones((2, 1)))
