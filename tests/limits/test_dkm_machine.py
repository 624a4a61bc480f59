"""Deep kernel machines as members: predictions, settings, notes and refusals."""

import math
from typing import Any

import numpy as np
import pytest

import widthwise as ww
from widthwise.data import from_arrays
from widthwise.family import Family, Member
from widthwise.learner import Posterior
from widthwise.limits import DeepKernelMachine, EmptyCell, TiltedPosterior, lookup
from widthwise.limits.dkm import machine
from widthwise.limits.dkm.extend import Extension, check_variances
from widthwise.network import (
    Conv,
    Dense,
    Flatten,
    Identity,
    LayerNorm,
    Readout,
    Relu,
    Unflatten,
)
from widthwise.problem import Problem
from widthwise.run import Run
from widthwise.scaling import NTK, MuP, Richness

RNG = np.random.default_rng(2)
X = RNG.normal(size=(40, 3))
Y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
DATA = from_arrays(X, Y, task="regression", test=10)
NET = Dense() >> Relu() >> Dense(times=2) >> Readout(weight_variance=1.0)
LINEAR = Dense() >> Dense() >> Readout()


def deep(noise: float | None = 0.1, **settings: Any) -> Posterior:
    return Posterior(noise=noise, prior="deep_gp", **settings)


def trained(learner: Posterior, net: Any = NET, scaling: Any = None, data=DATA) -> Run:
    return Member(net, math.inf, scaling or MuP(), learner).train(data)


@pytest.fixture(scope="module")
def run() -> Run:
    return trained(deep(nu=2.0))


@pytest.mark.parametrize("gamma0", [1.0, 2.0])
def test_infinite_nu_is_the_nngp(gamma0):
    """Richness divides the output under either scaling."""
    learner, lazy = deep(nu=math.inf), Richness(0.5, gamma0=gamma0)
    found = trained(learner, scaling=MuP(gamma0)).predict(DATA.x_test, covariance=True)
    wanted = trained(Posterior(noise=0.1), scaling=lazy).predict(DATA.x_test, covariance=True)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-6, atol=1e-9)
    assert found.covariance is not None and wanted.covariance is not None
    np.testing.assert_allclose(found.covariance, wanted.covariance, rtol=1e-6, atol=1e-9)


def test_large_nu_comes_close_to_it_and_small_nu_does_not(run):
    nngp = trained(Posterior(noise=0.1), scaling=NTK()).predict(DATA.x_test).value
    large = trained(deep(nu=1e5)).predict(DATA.x_test).value
    assert np.abs(large - nngp).max() < 1e-3
    assert np.abs(run.predict(DATA.x_test).value - nngp).max() > 0.05


def test_predictions_at_training_and_new_rows(run, tmp_path):
    state = run.state
    fitted = DATA.y_train - state.noise * state.weights
    again = run.predict(DATA.x_train, covariance=True)
    np.testing.assert_allclose(again.value, fitted, rtol=1e-6, atol=1e-8)
    found = run.predict(DATA.x_test, covariance=True)
    np.testing.assert_allclose(found.value, run.predict(DATA.x_test).value, rtol=1e-9)
    np.testing.assert_allclose(found.value, run.trajectory.predictions[-1], rtol=1e-9)
    one = run.predict(DATA.x_test[:1], covariance=True)
    assert one.std is not None and found.std is not None
    np.testing.assert_allclose(one.std, found.std[:1], rtol=1e-6)
    assert np.linalg.eigvalsh(found.covariance)[0] > -1e-9
    run.save(tmp_path / "run")
    np.testing.assert_array_equal(
        Run.load(tmp_path / "run").predict(DATA.x_test).value, run.predict(DATA.x_test).value
    )
    with pytest.raises(ValueError, match="columns"):
        run.predict(DATA.x_test[:, :2])


def test_the_run_tells_where_training_ended(run):
    assert run.limit == "DeepKernelMachine"
    assert "iterations of L-BFGS" in run.notes[0] and "of the gradient" in run.notes[0]
    assert "KL divergence of each hidden layer" in run.notes[1] and "condition" in run.notes[1]
    left = float(run.notes[0].split("left ")[1].split()[0])
    assert left <= machine.TOLERANCE * 1.05
    assert run.trajectory.train_loss[1] < run.trajectory.train_loss[0]
    for kernels in run.trajectory.kernels.values():
        assert kernels.shape == (2, 10, 10)
        assert np.linalg.norm(kernels[1] - kernels[0]) > 0.05 * np.linalg.norm(kernels[0])


def test_the_noise_is_that_of_the_nngp():
    run, nngp = trained(Posterior(nu=5.0), LINEAR), trained(Posterior(), LINEAR, NTK())
    assert run.state.noise == pytest.approx(nngp.state.noise, rel=1e-6)  # type: ignore[attr-defined]
    assert run.notes[0].startswith("The log evidence chose a noise variance")


@pytest.mark.slow
def test_variances_are_those_of_the_nngp():
    tuned = trained(Posterior(tune=True, nu=5.0), LINEAR)
    assert "weight_variance" in tuned.notes[0] and tuned.notes[0].endswith("for the NNGP.")


def test_rows_that_coincide_are_told():
    x, y = (np.concatenate([part[:15], part[:15]]) for part in (DATA.x_train, DATA.y_train))
    problem = Problem(x, y, DATA.x_test, DATA.y_test, 0.0, "regression")
    found = lookup(NET, MuP(), deep(nu=5.0)).prepare(problem, order=0, logs=2).train()
    assert "jitter" in found.notes[-1]
    fitted = found.state.predict(x, False).value
    np.testing.assert_allclose(fitted[:15], fitted[15:], rtol=1e-6)


def test_a_linear_network_has_one_posterior():
    runs = Family(LINEAR, MuP(), Posterior(noise=0.1), widths=(ww.inf,)).train(DATA, progress=False)
    assert runs.limit is not None and runs.limit.limit == "DeepKernelMachine"
    other = trained(deep(), LINEAR).predict(DATA.x_test).value
    np.testing.assert_allclose(runs.limit.predict(DATA.x_test).value, other, rtol=1e-9)


# Refusals


@pytest.mark.parametrize(
    "net, learner, match",
    [
        (NET, deep(kernel="ntk"), "leave kernel='ntk' out, or use NTK"),
        (Unflatten((3,)) >> Conv((2,)) >> Flatten() >> Readout(), deep(), "has Flatten.*Global"),
        (Dense() >> (Identity() + (Relu() >> Dense())) >> Readout(), deep(), "leave it"),
        (Readout(), deep(), "no hidden layer"),
    ],
    ids=["ntk", "grid", "branches", "no hidden layer"],
)  # fmt: skip
def test_what_it_is_not_for(net, learner, match):
    with pytest.raises(EmptyCell, match=match):
        lookup(net, MuP(), learner)


def test_networks_with_nonlinearities_have_another_limit():
    sentence = DeepKernelMachine(NET, MuP(), Posterior()).refusal()
    assert sentence is not None and "TiltedPosterior is their limit" in sentence
    assert isinstance(lookup(NET, MuP(), Posterior()), TiltedPosterior)


def test_settings(unchecked):
    assert repr(deep(nu=10.0)) == "Posterior(noise=0.1, prior='deep_gp', nu=10.0)"
    assert deep(nu=math.inf).nu == math.inf
    for settings, match in (
        ({"prior": "gp"}, "'network' or 'deep_gp'"),
        ({"nu": -1.0}, "nu of Posterior"),
        ({"nu": math.nan}, "nu of Posterior"),
    ):
        with pytest.raises(ValueError, match=match):
            Posterior(**settings)  # type: ignore[arg-type]
    layers = Dense() >> LayerNorm() >> Relu() >> Readout()
    assert isinstance(lookup(layers, MuP(), deep()), DeepKernelMachine)


def test_a_gram_matrix_that_collapses():
    with pytest.raises(EmptyCell, match="hidden layer 1, .*, collapses at nu 0.5: give a nu over"):
        trained(deep(noise=1e-15, nu=0.5))


def test_too_many_rows(monkeypatch):
    monkeypatch.setattr("widthwise.memory.free_memory", lambda: 10**8)
    many = Problem(
        np.ones((3000, 2)), np.ones((3000, 1)), X[:0, :2], Y[:0, None], 0.0, "regression"
    )
    with pytest.raises(MemoryError, match="Gram matrices of 3000 rows in 2 layers need 9"):
        lookup(NET, MuP(), deep()).check(many)


def test_a_variance_below_zero_names_its_layer(run):
    state: Any = run.state
    found: Any = Extension(np.zeros((1, 30)), np.eye(1), (), (np.array(0.1), np.array(-1e-3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"hidden layer 2, Dense\(times=2\).*larger nu or noise"):
        check_variances(state.layers, state.known, found)
