"""The lazy posterior against the formulas written out, and its evidence against differences."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from widthwise.kernels import kernel_matrix
from widthwise.learner import Posterior
from widthwise.limits import log_evidence, lookup
from widthwise.limits.evidence import best_variances
from widthwise.limits.noise import best_noise
from widthwise.network import Chain, Dense, Erf, Readout, Relu, Tanh
from widthwise.problem import Problem
from widthwise.scaling import NTK, Standard

RNG = np.random.default_rng(1)
X, NEW = RNG.normal(size=(14, 4)), RNG.normal(size=(5, 4))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
NET = Dense(bias_variance=0.2) >> Erf() >> Dense() >> Relu() >> Readout(weight_variance=1.0)


def posed(y=Y):
    return Problem(X, y, NEW, np.zeros((5, y.shape[1])), 0.0, "regression")


@pytest.mark.parametrize("scaling", [NTK(), Standard()], ids=repr)
def test_posterior_as_written_out(scaling):
    """By conditioning the joint Gaussian with NumPy's inverse."""
    state = lookup(NET, scaling, Posterior(noise=0.3)).prepare(posed(), order=0, logs=2).train()
    found = state.state.predict(NEW, True)
    assert found.covariance is not None
    joint = kernel_matrix(NET, np.concatenate([X, NEW]), scaling=scaling).nngp
    inverse = np.linalg.inv(joint[:14, :14] + 0.3 * np.eye(14))
    np.testing.assert_allclose(found.value, joint[14:, :14] @ inverse @ Y, rtol=1e-9)
    expected = joint[14:, 14:] - joint[14:, :14] @ inverse @ joint[:14, 14:]
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(state.trajectory.predictions[-1], found.value, rtol=1e-10)


@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
def test_evidence_and_its_gradient(kernel):
    net = Dense(bias_variance=0.2) >> Tanh() >> Dense() >> Relu() >> Readout()
    found = log_evidence(net, X, Y, noise=0.2, kernel=kernel)
    matrix = getattr(kernel_matrix(net, X), kernel) + 0.2 * np.eye(14)
    direct = sum(scipy.stats.multivariate_normal(cov=matrix).logpdf(y) for y in Y.T)
    assert found.value == pytest.approx(direct, rel=1e-10)

    def at(first, noise=0.2):
        changed = (
            Dense(weight_variance=first, bias_variance=0.2) >> Tanh() >> Dense() >> Relu()
            >> Readout()
        )  # fmt: skip
        return log_evidence(changed, X, Y, noise=noise, kernel=kernel).value

    step = 1e-5
    slope = (at(2 + step) - at(2 - step)) / (2 * step)
    assert found.variances["0.weight_variance"] == pytest.approx(slope, rel=1e-6)
    slope = (at(2, 0.2 + step) - at(2, 0.2 - step)) / (2 * step)
    assert found.noise == pytest.approx(slope, rel=1e-6)
    assert set(found.variances) == {
        "0.weight_variance", "0.bias_variance", "2.weight_variance", "4.weight_variance",
    }  # fmt: skip


def test_noise_of_the_largest_evidence():
    kernel = kernel_matrix(NET, X).nngp
    y = Y + RNG.normal(size=Y.shape) * 0.5
    noise, value = best_noise(kernel, y)
    assert value == pytest.approx(log_evidence(NET, X, y, noise=noise).value, rel=1e-9)
    for other in (0.9 * noise, 1.1 * noise, 0.01 * noise, 10 * noise):
        assert log_evidence(NET, X, y, noise=other).value <= value


def test_variances_of_the_largest_evidence():
    """Data drawn from a prior with ten times the readout's variance."""
    x = RNG.normal(size=(80, 3))
    true = Dense() >> Erf() >> Readout(weight_variance=2.5)
    lower = np.linalg.cholesky(kernel_matrix(true, x).nngp + 1e-3 * np.eye(80))
    y = lower @ RNG.normal(size=(80, 20))
    start = Dense() >> Erf() >> Readout(weight_variance=0.25)
    found, noise = best_variances(start, x, y, scaling=NTK(), kernel="nngp", noise=None)
    assert isinstance(found, Chain)
    layers: Any = found.layers
    assert layers[-1].weight_variance == pytest.approx(2.5, rel=0.3)
    assert layers[0].weight_variance == pytest.approx(2.0, rel=0.5)
    assert layers[0].bias_variance == 0.0
    assert noise == pytest.approx(1e-3, rel=0.3)
    best = log_evidence(found, x, y, noise=noise)
    assert best.value > log_evidence(true, x, y, noise=1e-3).value
    assert abs(best.variances["2.weight_variance"]) < 2.0  # a maximum: the slope is near zero


def test_tuned_posterior_says_what_it_chose():
    trained = lookup(NET, NTK(), Posterior(tune=True)).prepare(posed(), order=0, logs=2).train()
    assert "noise" in trained.notes[0] and "weight_variance" in trained.notes[0]


def test_duplicate_rows_without_noise():
    """A singular kernel needs jitter, and the run says so."""
    x, y = np.concatenate([X, X]), np.concatenate([Y, Y])
    problem = Problem(x, y, NEW, np.zeros((5, 2)), 0.0, "regression")
    trained = lookup(NET, NTK(), Posterior(noise=1e-18)).prepare(problem, order=0, logs=2).train()
    assert any("jitter" in note for note in trained.notes)
    np.testing.assert_allclose(trained.state.predict(X, False).value, Y, atol=1e-3)


def test_leaving_out_one_row():
    """The closed form is what leaving out each row in turn gives, and the best noise is chosen by
    it."""
    y = np.sin(X @ np.ones((X.shape[1], 1))) + 0.3 * np.random.default_rng(5).normal(
        size=(len(X), 1)
    )
    kernel = kernel_matrix(NET, X, which="nngp")

    def by_hand(noise):
        errors = []
        for row in range(len(X)):
            others = np.arange(len(X)) != row
            matrix = kernel[np.ix_(others, others)] + noise * np.eye(len(X) - 1)
            errors.append(y[row] - kernel[row, others] @ np.linalg.solve(matrix, y[others]))
        return float(np.mean(np.square(errors)))

    noise, value = best_noise(kernel, y, "leave_one_out")
    assert value == pytest.approx(by_hand(noise), rel=1e-6)
    for other in (noise / 2, noise * 2):
        assert by_hand(other) >= value
    limit = lookup(NET, NTK(), Posterior(criterion="leave_one_out"))
    found = limit.prepare(posed(y), order=0, logs=2).train()
    assert found.state.noise == pytest.approx(noise)  # type: ignore[attr-defined]
    assert found.notes == (f"Leaving out one row chose a noise variance of {noise:.3g}.",)
    tuned, chosen = best_variances(
        NET, X, y, scaling=NTK(), kernel="nngp", noise=None, criterion="leave_one_out"
    )
    better = best_noise(kernel_matrix(tuned, X, which="nngp"), y, "leave_one_out")
    assert better[1] <= value * (1 + 1e-9) and chosen > 0
