"""Deep kernel machines through inducing points, as members: training, predictions, refusals."""

import math
from typing import Any

import numpy as np
import pytest

import widthwise as ww
from widthwise.data import from_arrays
from widthwise.family import Member
from widthwise.inference import Inducing
from widthwise.learner import Posterior
from widthwise.limits import EmptyCell, InducingMachine, lookup
from widthwise.limits.base import Work
from widthwise.limits.dkm import inducing_machine, inducing_state
from widthwise.network import (
    AveragePool,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Identity,
    MaxPool,
    Readout,
    Relu,
    Unflatten,
)
from widthwise.problem import Diverged, Problem
from widthwise.run import Run
from widthwise.scaling import NTK, MuP

RNG = np.random.default_rng(4)
X = RNG.normal(size=(90, 3))
Y = np.sin(2 * X[:, 0]) + 0.5 * X[:, 1]
DATA = from_arrays(X, Y, task="regression", test=10)
NET = Dense() >> Relu() >> Readout(weight_variance=1.0)
DEEP = Dense() >> Relu() >> Dense(times=2) >> Relu() >> Readout(weight_variance=1.0)
PROBLEM = Problem(DATA.x_train, DATA.y_train, DATA.x_test, DATA.y_test, 0.0, "regression")
CLASSES = from_arrays(X, np.array(["a", "b", "c"])[np.digitize(X[:, 0], (-0.5, 0.5))], test=20)
IMAGES = Unflatten((4, 4)) >> Conv((2, 2)) >> Relu() >> Conv((2, 2), strides=(2, 2)) >> Relu()
IMAGES = IMAGES >> GlobalAveragePool() >> Readout()


def deep(points: Any = 12, epochs: int = 3, batch_size: Any = 20, **settings: Any) -> Posterior:
    own = {k: settings.pop(k) for k in ("regularisation", "quadratic", "lr") if k in settings}
    own = {"epochs": epochs, "batch_size": batch_size, "lr": 0.05} | own
    inducing = Inducing(points, **own)  # type: ignore[arg-type]
    defaults = {"prior": "deep_gp", "noise": 0.1, "nu": 1.0} | settings
    return Posterior(inducing=inducing, **defaults)  # type: ignore[arg-type]


def trained(learner: Posterior, net: Any = NET, data=DATA, **settings: Any) -> Run:
    return Member(net, math.inf, MuP(), learner).train(data, **settings)


@pytest.fixture(scope="module")
def run() -> Run:
    return trained(deep(epochs=100, lr=0.1), DEEP)


def test_it_learns_numbers(run, tmp_path):
    state: Any = run.state
    assert run.limit == "InducingMachine" and len(state.bounds) == 100
    assert state.bounds[-1] > state.bounds[0]
    found = run.predict(DATA.x_test, covariance=True)
    rest = np.mean((found.value - DATA.y_test) ** 2) / np.mean(DATA.y_test**2)
    assert rest < 0.5
    np.testing.assert_allclose(found.value, run.trajectory.predictions[-1], rtol=1e-9)
    assert found.covariance is not None
    assert np.linalg.eigvalsh(found.covariance)[0] > -1e-9
    outputs = state.outputs(DATA.x_test)
    np.testing.assert_allclose(np.diagonal(found.covariance), outputs.variance, rtol=1e-8)
    alone = run.predict(DATA.x_test[:1]).value
    np.testing.assert_allclose(alone, found.value[:1], rtol=1e-9)  # whatever else is in the batch
    run.save(tmp_path / "run")
    again = Run.load(tmp_path / "run").predict(DATA.x_test).value
    np.testing.assert_array_equal(again, run.predict(DATA.x_test).value)
    for kernels in run.trajectory.kernels.values():
        assert np.linalg.norm(kernels[1] - kernels[0]) > 0.01 * np.linalg.norm(kernels[0])
    assert "epochs of Adam" in run.notes[0] and "KL divergence" in run.notes[1]
    with pytest.raises(ValueError, match="columns"):
        run.predict(DATA.x_test[:, :2])


def test_it_goes_on_from_a_checkpoint_and_follows_from_the_order(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    learner = deep(regularisation=0.5, quadratic=True)
    prepared = lookup(NET, MuP(), learner).prepare(PROBLEM, order=3, logs=2)
    whole = prepared.train().state.predict(DATA.x_test, False).value
    shares: list[float] = []

    class Stop(Exception):
        pass

    def advance(share):
        shares.append(share)
        if sum(shares) > 0.5:
            raise Stop

    with pytest.raises(Stop):
        prepared.train(work=Work(kept, advance))
    rest: list[float] = []
    found = prepared.train(work=Work(kept, rest.append)).state.predict(DATA.x_test, False).value
    assert rest[0] == pytest.approx(1 / 3) and sum(rest) == pytest.approx(1)
    np.testing.assert_array_equal(found, whole)
    other = trained(learner, order=4).predict(DATA.x_test).value
    assert np.abs(other - whole).max() > 1e-6


@pytest.mark.slow
def test_frozen_gram_matrices():
    frozen = trained(deep(nu=math.inf, epochs=1))
    assert not any("KL" in note for note in frozen.notes)
    kernels = frozen.trajectory.kernels["1 Relu()"]
    np.testing.assert_allclose(kernels[1], kernels[0], rtol=0.2)  # but for the inducing inputs


def test_the_noise_is_that_of_the_nngp():
    found, nngp = (
        lookup(NET, scaling, learner).prepare(PROBLEM, order=0, logs=2)
        for scaling, learner in ((MuP(), deep(noise=None)), (NTK(), Posterior()))
    )
    assert found.bound.noise == pytest.approx(nngp.state.noise, rel=1e-6)  # type: ignore[attr-defined]
    assert found.notes[0].startswith("The log evidence chose a noise variance")  # type: ignore[attr-defined]


def test_classes_some_of_which_are_missing_from_mini_batches():
    run = trained(deep(12, 30, 5, likelihood="categorical"), data=CLASSES)
    chances = run.predict_proba(CLASSES.x_test)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(chances, run.predict(CLASSES.x_test).value, atol=1e-12)
    right = np.argmax(chances, axis=1) == np.argmax(CLASSES.y_test, axis=1)
    assert right.mean() > 0.7
    assert run.predict(CLASSES.x_test, covariance=True).covariance is None
    assert any("means over 1,000 draws" in note for note in run.notes)


def test_images_have_variances_of_their_own():
    x = RNG.normal(size=(60, 16))
    data = from_arrays(x, x[:, :8].mean(axis=1), test=10, task="regression")
    run = trained(deep((4, 6), 1, 50), IMAGES, data)
    found = run.predict(data.x_test, covariance=True)
    _, variance = run.state.outputs(data.x_test)  # type: ignore[attr-defined]
    assert found.covariance is not None and found.covariance.shape == (10, 1, 1)
    np.testing.assert_allclose(found.std[:, 0] ** 2, variance)  # type: ignore[index]
    assert variance.min() > 0
    assert run.predict(data.x_test).covariance is None


@pytest.mark.slow
def test_images():
    x = RNG.normal(size=(60, 16))
    bright = (x[:, :8].mean(axis=1) > 0).astype(int)
    data = from_arrays(x, bright, test=10)
    run = trained(deep((4, 6), 2, None, likelihood="categorical"), IMAGES, data)
    assert run.predict_proba(data.x_test).shape == (10, 2)
    assert run.trajectory.kernels == {}
    free = [own for own in run.state.fitted.layers if own is not None]  # type: ignore[attr-defined]
    assert [None if own.mix is None else own.mix.shape for own in free] == [None, (4, 4, 6), None]


@pytest.mark.slow
def test_digits():
    data = ww.data.load("digits", train=1000, test=700)
    net = Unflatten() >> Conv(strides=(2, 2)) >> Relu() >> Conv(strides=(2, 2)) >> Relu()
    net = net >> GlobalAveragePool() >> Readout(weight_variance=4.0)
    learner = deep((9, 32), 40, 50, likelihood="categorical", nu=0.1, lr=0.01)
    chances = trained(learner, net, data).predict_proba(data.x_test)
    right = np.argmax(chances, axis=1) == np.argmax(data.y_test, axis=1)
    assert right.mean() > 0.8


# Refusals


def test_which_limit_serves(unchecked):
    whole = Posterior(prior="deep_gp", noise=0.1)
    assert lookup(NET, MuP(), whole).__class__.__name__ == "DeepKernelMachine"
    assert isinstance(lookup(NET, MuP(), deep()), InducingMachine)
    residual = Unflatten((4, 4)) >> Conv() >> (Identity() + (Relu() >> Conv())) >> AveragePool()
    residual = residual >> GlobalAveragePool() >> Readout()
    assert isinstance(lookup(residual, MuP(), deep()), InducingMachine)
    assert repr(Inducing(8, regularisation=0.25)) == "Inducing(points=8, regularisation=0.25)"
    for settings in ({"regularisation": 0.0}, {"regularisation": math.nan}):
        with pytest.raises(ValueError, match="regularisation of Inducing"):
            Inducing(8, **settings)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="quadratic"):
        Inducing(8, quadratic=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "net, learner, match",
    [
        (IMAGES, Posterior(prior="deep_gp"), "give Posterior inducing=Inducing"),
        (NET, deep(tune=True), "leave tune out"),
        (DEEP, deep(prior="network"), "use Posterior\\(prior='deep_gp'\\)"),
        (Unflatten((4, 4)) >> Conv() >> Relu() >> Flatten() >> Readout(), deep(), "Flatten"),
        (Unflatten((4, 4)) >> MaxPool() >> GlobalAveragePool() >> Readout(), deep(), "MaxPool"),
        (Unflatten((4, 4)) >> AveragePool() >> Conv() >> GlobalAveragePool() >> Readout(), deep(),
         "put Conv\\(\\) or Dense\\(\\) first"),
        (Readout(), deep(), "no hidden layer|first"),
    ],
    ids=["whole", "tune", "network", "flatten", "maximum", "pool first", "readout"],
)  # fmt: skip
def test_what_it_is_not_for(net, learner, match):
    with pytest.raises(EmptyCell, match=match):
        lookup(net, MuP(), learner)


@pytest.mark.parametrize(
    "net, learner, data, match",
    [
        (NET, deep(likelihood="categorical"), DATA, "is of classes"),
        (Unflatten((3,)) >> Conv((2,)) >> GlobalAveragePool() >> Readout(), deep(noise=None), DATA,
         "give Posterior\\(noise"),
        (NET, deep((4, 6)), DATA, "1 grids of positions \\(one\\): give one number for each"),
        (DEEP, deep(nu=(1.0, 2.0, 3.0)), DATA, "2 hidden layers: give one"),
        (NET, deep(points=100), DATA, "100 points and 80 different inputs of Dense"),
    ],
    ids=["numbers", "noise", "points", "nus", "more points than rows"],
)  # fmt: skip
def test_settings_that_the_rows_do_not_go_with(net, learner, data, match):
    with pytest.raises(EmptyCell, match=match):
        trained(learner, net, data)


def test_a_bound_that_is_no_number():
    with pytest.raises(Diverged, match=r"left the finite numbers in epoch \d+: lower lr"):
        trained(deep(lr=1e3))


def test_a_variance_below_zero_names_its_layer(run, monkeypatch):
    monkeypatch.setattr(inducing_state, "NEGATIVE", -10.0)  # all are below
    with pytest.raises(ValueError, match=r"variance of a row .* at step 1, Dense\(times=2\)"):
        run.predict(DATA.x_test)


def test_inducing_points_that_coincide(monkeypatch):
    monkeypatch.setattr(inducing_machine, "first_points", lambda *_: np.full((12, 3), np.nan))
    with pytest.raises(ValueError, match="singular at the readout"):
        trained(deep())
