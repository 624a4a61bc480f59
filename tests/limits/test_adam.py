"""The Adam limit against the tangent kernel, closed forms and finite networks."""

import math
from typing import Any

import numpy as np
import pytest

import widthwise as ww
from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.train import InitialFunction, train
from widthwise.limits.adam import AdamLimit, carried
from widthwise.limits.base import EmptyCell, Start, Work
from widthwise.limits.tangent import TangentKernel
from widthwise.problem import Diverged, Problem
from widthwise.run import Run

RELU = ww.Dense() >> ww.Relu() >> ww.Dense() >> ww.Relu() >> ww.Readout()
MIXED = (
    ww.Dense(bias_variance=0.3, bias_multiplier=0.5)
    >> ww.Erf()
    >> ww.Dense(bias_multiplier=1.0, lr_multiplier=2.0)
    >> ww.Tanh()
    >> ww.Readout(bias_multiplier=0.7, weight_variance=1.0)
)
NORMED = ww.Dense() >> ww.LayerNorm() >> ww.Relu() >> ww.Readout()
BARE = (
    ww.Dense(bias_multiplier=0.0)
    >> ww.Relu()
    >> ww.Dense(bias_multiplier=0.0)
    >> ww.Abs()
    >> ww.Readout(bias_multiplier=0.0)
)
BOUNDED = ww.Dense(bias_multiplier=0.0) >> ww.Tanh() >> ww.Readout(bias_multiplier=0.0)
FROZEN = ww.Dense(lr_multiplier=0.0) >> ww.Relu() >> ww.Readout(lr_multiplier=0.0)
SIGN: Any = dict(b1=0.0, b2=0.0)


def problem(outputs: int = 1, rows: int = 20) -> Problem:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows + 10, 10)), rng.standard_normal((10, outputs))
    y = np.tanh(x @ w / np.sqrt(10))
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, "regression")


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def limit_of(network, learner, data, samples=8192, scaling=None, start=None):
    limit = AdamLimit(network, ww.NTK() if scaling is None else scaling, learner, samples)
    return limit.prepare(data, order=0, logs=6).train(start)


def gaps(network, learner, data, widths, seeds, samples, scaling=None) -> list[float]:
    """At each width, the rms of finite networks' predictions less those of the limit from their
    own initial functions."""
    scaling = ww.NTK() if scaling is None else scaling
    sizes = data.x_train.shape[1], data.y_train.shape[1]
    limit = AdamLimit(network, scaling, learner, samples).prepare(data, order=0, logs=6)
    found = []
    for width in widths:
        net, apart = FiniteNetwork(network, width, *sizes, scaling, True), []
        for seed in range(seeds):
            f0 = InitialFunction(net, seed)
            wide = limit.train(Start(f0(data.x_train), f0(data.x_test), f0))
            _, one = train(net, data, learner, lr=learner.lr, seed=seed, order=0, logs=6)
            apart.append(one.predictions[-1] - wide.trajectory.predictions[-1])
        found.append(rms(apart))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("network", [RELU, MIXED], ids=["relu", "mixed"])
def test_with_an_eps_above_all_gradients_it_is_the_tangent_kernel(network):
    """g / (|g| + eps) is then g / eps: gradient descent at lr / eps."""
    data, eps = problem(2), 1e6
    learner = ww.Adam(lr=0.3 * eps, steps=20, eps=eps, batch_size=8, **SIGN)
    found = limit_of(network, learner, data, 16384).trajectory
    descent = ww.GradientDescent(lr=0.3, steps=20, batch_size=8)
    exact = TangentKernel(network, ww.NTK(), descent).prepare(data, order=0, logs=6).train()
    change = rms(exact.trajectory.predictions[-1])
    assert rms(found.predictions[-1] - exact.trajectory.predictions[-1]) < 0.03 * change


def test_one_step_of_signs_on_one_row_has_a_closed_form():
    """Readout weights alone: E[x(xi) sign x(a)] = s (1 + rho) / (2 sqrt(2 pi)) for ReLU."""
    data = problem(rows=1)
    network = ww.Dense(lr_multiplier=0.0) >> ww.Relu() >> ww.Readout(bias_multiplier=0.0)
    found = limit_of(network, ww.Adam(lr=0.1, steps=1, eps=1e-12, **SIGN), data, 65536)
    both = np.concatenate([data.x_train, data.x_test])
    covariance = 2 * both @ both.T / 10
    size = np.sqrt(np.diagonal(covariance))
    rho = covariance[0, 1:] / (size[0] * size[1:])
    expected = 0.1 * 0.5 * size[1:] * (1 + rho) / (2 * np.sqrt(2 * np.pi))
    expected *= np.sign(data.y_train[0, 0])
    assert rms(found.trajectory.predictions[-1][:, 0] - expected) < 0.01 * rms(expected)


def test_one_softened_sign_of_a_gaussian_feature_has_a_closed_form():
    """The readout of a linear layer: K(x, X) e q(v), v = e'Ke, by quadrature of E Q'."""
    data = problem()
    network = ww.Dense(lr_multiplier=0.0) >> ww.Readout(bias_multiplier=0.0)
    eps = 0.05
    found = limit_of(network, ww.Adam(lr=0.1, steps=1, eps=eps, **SIGN), data, 65536)
    covariance = 0.25 * 2 / 10 * np.concatenate([data.x_train, data.x_test]) @ data.x_train.T
    e = data.y_train[:, 0] / len(data.y_train)
    v = e @ covariance[: len(e)] @ e
    s = np.sqrt(v) * np.linspace(-10, 10, 200_001)
    weight = np.exp(-(s**2) / (2 * v)) / np.exp(-(s**2) / (2 * v)).sum()
    q = np.sum(weight * s * s / (np.abs(s) + eps)) / v
    expected = 0.1 * covariance[len(e) :] @ e * q
    assert rms(found.trajectory.predictions[-1][:, 0] - expected) < 0.02 * rms(expected)


@pytest.mark.parametrize(
    "network, outputs, settings, scaling",
    [
        (RELU, 1, dict(lr=0.03, steps=20, eps=1e-4), ww.NTK()),
        pytest.param(
            MIXED,
            3,
            dict(lr=0.03, steps=20, eps=1e-3, batch_size=7, schedule=ww.Cosine()),
            ww.NTK(),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            MIXED,
            2,
            dict(lr=0.02, steps=10, eps=0.1, **SIGN),
            ww.Richness(0.4, gamma0=2.0),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["adam", "batches", "sign"],
)
def test_finite_networks_approach_it(network, outputs, settings, scaling):
    data, learner = problem(outputs), ww.Adam(**settings)
    narrow, wide = gaps(network, learner, data, (32, 1024), 2, 8192, scaling)
    assert wide < 0.5 * narrow
    assert wide < 0.12


@pytest.mark.slow
def test_finite_networks_under_signs_with_momentum_approach_it():
    learner = ww.SignDescent(lr=0.02, steps=10, eps=0.1)
    narrow, wide = gaps(MIXED, learner, problem(2), (32, 1024), 2, 8192)
    assert wide < 0.5 * narrow
    assert wide < 0.12


@pytest.mark.slow
def test_signs_without_momentum_are_adam_without_memory():
    data = problem(2)
    common: Any = dict(lr=0.03, steps=5, eps=1e-3, batch_size=7)
    one = limit_of(MIXED, ww.SignDescent(momentum=0.0, **common), data, 1024).trajectory
    two = limit_of(MIXED, ww.Adam(**SIGN, **common), data, 1024).trajectory
    np.testing.assert_allclose(one.predictions, two.predictions, rtol=1e-5, atol=1e-6)


def test_a_first_step_that_is_not_corrected_is_longer():
    """(1 - b1) / sqrt(1 - b2) times that of signs, where eps is far below the gradients."""
    data = problem()
    common: Any = dict(steps=1, eps=1e-12)
    long = limit_of(RELU, ww.Adam(lr=0.01, bias_correction=False, **common), data, 1024)
    short = limit_of(RELU, ww.Adam(lr=0.01 * 0.1 / np.sqrt(0.001), **common), data, 1024)
    both = (one.trajectory.predictions[-1] for one in (long, short))
    np.testing.assert_allclose(*both, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_finite_networks_without_correction_approach_it():
    learner = ww.Adam(lr=0.01, steps=10, eps=1e-3, b2=0.9, bias_correction=False)
    narrow, wide = gaps(RELU, learner, problem(), (32, 1024), 2, 8192)
    assert wide < 0.5 * narrow
    assert wide < 0.12


@pytest.mark.slow
def test_finite_networks_that_decay_approach_it():
    """Weights shrink to .7 of their sizes: a third of the initial function is left."""
    data = problem(2)
    common: Any = dict(lr=0.03, steps=10, eps=1e-2, schedule=ww.Cosine())
    learner = ww.Adam(weight_decay=2.0, **common)
    narrow, wide = gaps(BARE, learner, data, (32, 1024), 2, 8192)
    assert wide < 0.5 * narrow
    found, still = (limit_of(BARE, one, data) for one in (learner, ww.Adam(**common)))
    last = found.trajectory.predictions[-1]
    assert rms(last - still.trajectory.predictions[-1]) > 5 * wide
    there = found.state.predict(data.x_test, False).value
    np.testing.assert_allclose(there, last, atol=1e-6)


def test_decay_alone_shrinks_the_initial_function_and_the_features():
    data = problem()
    learner = ww.Adam(lr=0.1, steps=2, eps=1e9, weight_decay=1.0)
    start = Start(1 + data.y_train, 1 + data.y_test, lambda x: np.ones((len(x), 1)))
    found = limit_of(BARE, learner, data, 1024, start=start)
    np.testing.assert_allclose(
        found.trajectory.predictions[-1], 0.9**6 * (1 + data.y_test), rtol=1e-4
    )
    np.testing.assert_allclose(found.state.predict(data.x_test, False).value, 0.9**6, rtol=1e-4)
    for depth, kernels in enumerate(found.trajectory.kernels.values(), start=1):
        np.testing.assert_allclose(kernels[-1], 0.9 ** (4 * depth) * kernels[0])


def test_decay_shrinks_features_by_every_layer_in_front_of_them():
    """Of the two before the one nonlinearity, by four factors a step."""
    bare = ww.Dense(bias_multiplier=0.0)
    network = bare >> bare >> ww.Relu() >> ww.Readout(bias_multiplier=0.0)
    learner = ww.Adam(lr=0.1, steps=2, eps=1e9, weight_decay=1.0)
    (kernels,) = limit_of(network, learner, problem(), 1024).trajectory.kernels.values()
    np.testing.assert_allclose(kernels[-1], 0.9**8 * kernels[0])


@pytest.mark.slow
def test_cross_entropy_and_prediction_at_new_rows(tmp_path):
    data = ww.data.load("iris")
    learner = ww.Adam(lr=0.02, steps=15, eps=1e-2, loss="cross_entropy")
    limit = AdamLimit(RELU, ww.NTK(), learner, samples=4096)
    family = ww.Family(RELU, ww.NTK(), learner, (1024, math.inf), seeds=1, limit=limit)
    finite, _, run = family.train(data, progress=False, logs=4).runs
    assert run.limit == "AdamLimit" and "Monte Carlo: two halves" in run.notes[0]
    last = run.trajectory.predictions[-1]
    assert rms(finite.trajectory.predictions[-1] - last) < 0.1 * rms(last)
    there = run.predict(data.x_test).value
    np.testing.assert_allclose(there, run.trajectory.predictions[-1], atol=1e-6)
    np.testing.assert_allclose(run.predict(data.x_test[3:4]).value, there[3:4], atol=1e-6)
    run.save(tmp_path / "run")
    np.testing.assert_array_equal(Run.load(tmp_path / "run").predict(data.x_test).value, there)


@pytest.mark.slow
def test_random_networks_stand_for_factored_kernels(monkeypatch):
    data, learner = problem(2), ww.Adam(lr=0.03, steps=10, eps=1e-2)
    exact = limit_of(MIXED, learner, data, 16384).trajectory.predictions[-1]
    monkeypatch.setattr(carried, "FACTORED", 0)
    found = limit_of(MIXED, learner, data, 16384)
    assert rms(found.trajectory.predictions[-1] - exact) < 0.05 * rms(exact)
    again = found.state.predict(data.x_test, False).value
    np.testing.assert_allclose(again, found.trajectory.predictions[-1], atol=1e-6)


def test_a_training_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    data, learner = problem(), ww.Adam(lr=0.03, steps=10, eps=1e-2, batch_size=8)
    prepared = AdamLimit(RELU, ww.NTK(), learner, 1024).prepare(data, order=0, logs=4)
    whole = prepared.train()
    monkeypatch.setattr("widthwise.limits.adam.training.SECONDS", -1.0)
    shares: list[float] = []

    def stop(share):
        shares.append(share)
        if len(shares) == 6:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        prepared.train(None, Work(path, stop))
    shares.clear()
    rest = prepared.train(None, Work(path, shares.append))
    assert shares[0] == 0.5 and sum(shares) == pytest.approx(1.0)
    np.testing.assert_array_equal(rest.trajectory.predictions, whole.trajectory.predictions)


@pytest.mark.parametrize(
    "network, scaling, learner, sentence",
    [
        (RELU, ww.NTK(), ww.Adam(weight_decay=0.1), "only shrinks them: leave weight_decay out"),
        (BOUNDED, ww.NTK(), ww.SignDescent(weight_decay=0.1), "leave weight_decay out"),
        (RELU, ww.Standard(), ww.Adam(), "use NTK"),
        (NORMED, ww.NTK(), ww.Adam(), "plain stacks"),
        (FROZEN, ww.NTK(), ww.Adam(), "no tensor's steps move|cannot be computed"),
    ],
    ids=["biases", "bounded", "standard", "layer norm", "untrained"],
)
def test_what_it_refuses(network, scaling, learner, sentence):
    with pytest.raises(EmptyCell, match=sentence):
        ww.Member(network, math.inf, scaling, learner).train(ww.data.load("iris"))


def test_steps_past_the_edge_of_stability_are_flagged():
    notes = limit_of(RELU, ww.Adam(lr=5.0, steps=10, eps=1e-8, **SIGN), problem(), 1024).notes
    assert any("lr is past what is stable" in note for note in notes)


def test_a_loss_that_grows_without_bound_is_refused():
    with pytest.raises(Diverged, match="lower lr, or leave it out"):
        limit_of(RELU, ww.Adam(lr=1e6, steps=10, eps=1e-8, **SIGN), problem(), 1024)


def test_an_eps_of_zero_is_refused():
    """Entries whose gradients are all zero, as those of dead inputs are, would step by 0 / 0."""
    with pytest.raises(ValueError, match="eps of Adam is 0.0: give a finite number, at least"):
        ww.Adam(eps=0.0)
    with pytest.raises(ValueError, match="eps of SignDescent is 1e-40"):
        ww.SignDescent(eps=1e-40)  # 0 in float32
    data = problem()
    data = data._replace(
        x_train=np.c_[data.x_train, np.zeros(20)], x_test=np.c_[data.x_test, np.zeros(10)]
    )
    found = limit_of(RELU, ww.Adam(lr=0.03, steps=3, eps=1e-30), data, 1024).trajectory
    assert np.isfinite(found.predictions).all()


def test_memory_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("widthwise.memory.free_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"use fewer rows, or limit=AdamLimit\(..., samples="):
        limit_of(RELU, ww.Adam(lr=0.1), problem())
