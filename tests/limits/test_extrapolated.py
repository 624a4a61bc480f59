"""Extrapolation from finite widths against limits that are known exactly, and its error bar."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import widthwise as ww
from widthwise.learner import Adam, GradientDescent, GradientFlow
from widthwise.limits import AdamMeanField, EmptyCell, Extrapolated, RichLinear, Work, lookup
from widthwise.limits.extrapolated import FACTORS, estimate, intercept
from widthwise.network import Dense, LayerNorm, Readout, Relu, Tanh
from widthwise.problem import Problem
from widthwise.scaling import NTK, MuP

LINEAR = Dense() >> Readout()
DESCENT = GradientDescent(lr=0.2, steps=40)
NET = Dense() >> Tanh() >> Readout()
ADAM = Adam(lr=0.05, steps=40, eps=1e-2)
PLAIN: Any = dict(order=0, logs=6)
EXACT = {
    "linear": RichLinear(LINEAR, MuP(), DESCENT),
    "adam": AdamMeanField(NET, MuP(), ADAM, samples=131072),
}


def problem(rows=16, columns=5, test=14) -> Problem:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows + test, columns))
    y = np.sin(1.5 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, "regression")


def extrapolated(exact, **settings) -> Any:
    limit = Extrapolated(exact.network, exact.scaling, exact.learner, **settings)
    return limit.prepare(problem(), **PLAIN).train()


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_the_intercept_is_that_of_polynomials():
    for degree in (1, 2):
        found = intercept(degree)
        np.testing.assert_allclose(found.sum(), 1)
        for power in range(1, degree + 1):
            assert abs(found @ (1.0 / FACTORS) ** power) < 1e-12


@pytest.mark.parametrize("curvature", [0.0, 0.4])
def test_intervals_of_made_up_networks_cover(curvature):
    """Scatter like n^-1/2, with a term 1 / n and, in the second case, one 1 / n^2 that alone is far
    larger than the scatter: entries are covered in about 95 of 100 draws, or more."""
    rng, seeds, entries = np.random.default_rng(1), 8, 2000
    spread = 0.02 / np.sqrt(FACTORS)[:, None, None]
    bias = 0.3 / FACTORS + curvature / FACTORS**2
    found = bias[:, None, None] + spread * rng.standard_normal((3, seeds, entries))
    one = estimate(found)
    inside = float(np.mean(np.abs(one.value) <= one.error(one.misfit)))
    assert 0.94 < inside <= (0.965 if curvature == 0 else 1.0)
    if curvature == 0:
        assert one.misfit < 0.5
        said, known = np.sqrt(one.variance.mean()), one.value.std()
        assert said == pytest.approx(known, rel=0.1)
        assert one.error(0.0).mean() / said > norm.ppf(0.975)
    else:
        taken = curvature * (intercept(1) @ FACTORS**-2.0)
        np.testing.assert_allclose(one.value.mean(), taken, rtol=0.02)
        np.testing.assert_allclose(one.bend.mean(), taken, rtol=0.02)


@pytest.mark.parametrize(
    "case",
    [name if name == "linear" else pytest.param(name, marks=pytest.mark.slow) for name in EXACT],
)
def test_it_is_near_the_exact_limit(case):
    data, exact = problem(), EXACT[case]
    wanted = exact.prepare(data, **PLAIN).train()
    found = extrapolated(exact, width=64, seeds=4)
    error = found.state.error(data.x_test)
    assert error.shape == data.y_test.shape
    one, two = (trained.state.predict(data.x_test, False).value for trained in (found, wanted))
    assert rms(one - two) < rms(error) < 0.2
    np.testing.assert_allclose(found.trajectory.predictions[-1], one, atol=1e-5)
    assert rms(found.trajectory.predictions - wanted.trajectory.predictions) < 0.05
    np.testing.assert_allclose(found.trajectory.train_loss, wanted.trajectory.train_loss, atol=0.03)
    for name, kernel in wanted.trajectory.kernels.items():
        assert rms(found.trajectory.kernels[name] - kernel) < 0.1 * rms(kernel)


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_its_interval_covers_the_exact_limit(case):
    """Jointly: the rms of the gap is within the rms of the intervals. Entry by entry: the share of
    the 14 test predictions within their own, which move together."""
    data, exact = problem(), EXACT[case]
    wanted = exact.prepare(data, **PLAIN).train().state.predict(data.x_test, False).value
    joint, single = [], []
    for seed in range(10):
        state = extrapolated(exact, width=64, seeds=8, seed=seed).state
        gap = np.abs(state.predict(data.x_test, False).value - wanted)
        error = state.error(data.x_test)
        joint.append(rms(gap) <= rms(error))
        single.append(np.mean(gap <= error))
    assert sum(joint) >= 8
    assert np.mean(single) > 0.85


@pytest.mark.slow
def test_members_and_families_take_it_by_name():
    data = ww.data.from_arrays(problem().x_train, problem().y_train[:, 0], test=5)
    network = Dense() >> Relu() >> LayerNorm() >> Dense() >> Relu() >> Readout()
    learner = Adam(steps=4)  # its step size is found
    limit = Extrapolated(network, MuP(), learner, width=16, seeds=2)
    family = ww.Family(network, MuP(), learner, widths=(16, math.inf), seeds=2, limit=limit)
    runs = family.train(data, progress=False)
    run, member = runs.limit, runs.at(16)[0]
    assert run is not None and not runs.open_cells and runs.from_start_of(member) is run
    assert run.limit == "Extrapolated" and run.learner.lr == runs.lr  # type: ignore[attr-defined]
    assert "widths 16, 32 and 64" in run.notes[0] and "richardson1911" in run.sources[-1]
    for state in run.state.networks[:2]:  # type: ignore[attr-defined]
        first = member.state.parameters[0].weight  # type: ignore[attr-defined]
        assert not np.allclose(state.parameters[0].weight, first), "other draws than the members'"
    with pytest.raises(ValueError, match="limit is of the learner Adam.*give both the same"):
        ww.Member(network, math.inf, MuP(), Adam(steps=20), limit)


def test_the_table_never_takes_it_and_the_list_shows_it():
    from widthwise.catalogue import catalogue

    with pytest.raises(EmptyCell, match="limit=Extrapolated"):
        lookup(Dense() >> Relu() >> Dense() >> Relu() >> Readout(), MuP(), ADAM)
    assert "Extrapolated" in [entry["name"] for entry in catalogue()["limits"]]


def test_an_interrupted_training_goes_on_and_is_saved(tmp_path):
    limit = Extrapolated(NET, MuP(), ADAM, width=16, seeds=2)
    prepared, path, shares = limit.prepare(problem(), **PLAIN), tmp_path / "one", []
    whole: Any = prepared.train()

    def interrupt(share):
        shares.append(share)
        if sum(shares) > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared.train(work=Work(path, interrupt))
    shares.clear()
    found = prepared.train(work=Work(path, shares.append))
    assert shares[0] > 0.1 and sum(shares) == pytest.approx(1)
    np.testing.assert_array_equal(found.trajectory.predictions, whole.trajectory.predictions)
    x = problem().x_test
    state = pickle.loads(pickle.dumps(found.state))
    np.testing.assert_array_equal(state.predict(x, True).value, whole.state.predict(x, True)[0])
    assert state.predict(x, True).covariance is None
    np.testing.assert_allclose(state.error(x[:1]), whole.state.error(x)[:1])


@pytest.mark.parametrize(
    "settings, sentence",
    [(dict(width=8), "at least 16"), (dict(seeds=1), "at least 2"), (dict(seed=-1), "at least 0")],
)
def test_settings_that_it_refuses(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Extrapolated(NET, MuP(), ADAM, **settings)


@pytest.mark.parametrize(
    "network, scaling, learner, sentence",
    [
        (NET, NTK(), ADAM, "a limit of its own.*use MuP"),
        (NET, MuP(), GradientFlow(time=1.0), "GradientFlow is for width=inf"),
        (Dense() >> Relu() >> Readout(bias_variance=1.0), MuP(), ADAM, "set bias_variance=0"),
    ],
)
def test_what_it_refuses(network, scaling, learner, sentence):
    limit = Extrapolated(network, scaling, learner)
    with pytest.raises(EmptyCell, match=sentence):
        ww.Member(network, math.inf, scaling, learner, limit).train(ww.data.load("diabetes"))
    with pytest.raises(EmptyCell, match=sentence):
        limit.check(problem())


def test_it_refuses_what_finds_no_room():
    with pytest.raises(MemoryError, match="The weights of 24 networks need"):
        Extrapolated(Dense() >> Relu() >> NET, MuP(), ADAM, width=2**20).check(problem())
