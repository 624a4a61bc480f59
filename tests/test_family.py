"""Members of all widths side by side: lazy networks approach their limit, interruptions resume."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from slowly import cases

import widthwise as ww
from widthwise.data import Data, from_arrays
from widthwise.family import Family, Member
from widthwise.finite.train import initial_key
from widthwise.limits import EmptyCell
from widthwise.measure import Agreement, Consistency, FeatureMovement
from widthwise.measure.gaps import ensemble_gaps, gaps_of, mean_in_standard_errors
from widthwise.measure.power import fit_power, fit_statistic
from widthwise.network import Dense, Erf, Readout, Relu
from widthwise.problem import Diverged

NET = Dense() >> Erf() >> Dense() >> Relu() >> Readout()


def regression(rows: int = 40, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    return from_arrays(x, np.sin(x[:, 0]) + x[:, 1] * x[:, 2], task="regression", test=12)


def classes(seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(45, 4))
    return from_arrays(x, np.argmax(x[:, :3], axis=1), task="classification", test=15)


PLAIN = ww.GradientDescent(steps=15)
BATCHES = ww.GradientDescent(steps=15, batch_size=10, momentum=0.5, ridge=0.1)
CLASSES = ww.GradientDescent(steps=15, loss="cross_entropy")


@pytest.mark.parametrize(
    "learner, scaling",
    [
        pytest.param(PLAIN, ww.NTK(), marks=pytest.mark.slow),
        pytest.param(PLAIN, ww.Standard(), marks=pytest.mark.slow),
        pytest.param(BATCHES, ww.NTK(), marks=pytest.mark.slow),
        (BATCHES, ww.Standard()),
        pytest.param(CLASSES, ww.NTK(), marks=pytest.mark.slow),
        pytest.param(CLASSES, ww.Standard(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_lazy_members_approach_their_limit(learner, scaling):
    """Each held against the limit from its own start: the gap falls near n^-1/2."""
    family = Family(NET, scaling, learner, widths=(64, 256, 1024, math.inf), seeds=3)
    runs = family.train(classes(), progress=False)
    law = fit_power(np.array(runs.widths, dtype=float), gaps_of(runs).predictions)
    assert -0.7 < law.exponent < -0.3, law


@pytest.mark.slow
def test_between_lazy_and_rich_the_kernel_is_the_same_and_the_start_vanishes():
    """At Richness(1/4) features move like n^-1/4, and the gap to the kernel limit with them."""
    between = ww.Richness(0.25)
    data = classes()
    np.testing.assert_allclose(
        ww.kernel_matrix(NET, data.x_train, scaling=between).ntk,
        ww.kernel_matrix(NET, data.x_train, scaling=ww.NTK()).ntk,
        rtol=1e-12,
    )
    family = Family(NET, between, ww.GradientDescent(steps=15), (64, 256, 1024, math.inf), 3)
    runs: Any = family.train(data, progress=False)
    law = fit_power(np.array(runs.widths, dtype=float), gaps_of(runs).predictions)
    assert -0.6 < law.exponent < -0.1, law
    assert runs.limit.predict(data.x_test, covariance=True).std.max() == 0.0
    with pytest.raises(EmptyCell, match="NTK"):
        Member(NET, math.inf, between, ww.Posterior()).train(data)


@pytest.mark.slow
def test_the_limit_is_what_a_large_ensemble_does():
    """Mean and standard deviation of 200 networks of width 256 against the closed form."""
    data = regression(24)
    learner = ww.GradientDescent(steps=20, lr=1.0)
    family = Family(NET, ww.NTK(), learner, widths=(256, math.inf), seeds=200)
    runs: Any = family.train(data, progress=False, logs=2)
    found = runs.limit.predict(data.x_test, covariance=True)
    own = np.stack([run.trajectory.predictions[-1][:, 0] for run in runs.at(256)])
    # a mean of 200 normal samples, plus what finite width adds to it
    off = mean_in_standard_errors(runs, 256)
    assert off is not None and off < 2.0
    np.testing.assert_allclose(own.std(axis=0), found.std, rtol=0.25)
    ensemble = ensemble_gaps(runs)
    assert ensemble.mean[0] < 0.1 and ensemble.std[0] < 0.15


@pytest.mark.slow
def test_instruments_speak_of_lazy_and_rich():
    learner = ww.GradientDescent(steps=10, ridge=0.01)  # no rich limit knows a ridge
    widths = (32, 128, 512, math.inf)
    lazy, rich = (
        Family(NET, scaling, learner, widths=widths, seeds=3).train(regression(), progress=False)
        for scaling in (ww.NTK(), ww.MuP())
    )
    assert "lazy" in FeatureMovement()(lazy).sentence
    assert "rich" in FeatureMovement()(rich).sentence
    assert lazy.limit is not None and rich.limit is None
    assert "projection=400" in rich.open_cells[0].sentence
    assert "open" in Consistency()(rich).sentence
    table = Agreement()((lazy, rich)).table
    labels = [(row[0], row[1]) for row in table.rows]
    assert ("MuP, GradientDescent", "∞") in labels
    assert ("NTK, GradientDescent", "∞, mean over all starts") in labels
    assert table.rows[labels.index(("MuP, GradientDescent", "∞"))][2] is None


def test_interrupted_family_resumes(tmp_path, monkeypatch):
    """On disk and in memory; what was finished is not trained again."""
    import widthwise.family as module
    from widthwise import shelf

    family = Family(NET, ww.NTK(), ww.GradientDescent(steps=5), widths=(8, 16, math.inf), seeds=2)
    whole = family.train(regression(), progress=False)
    train, calls = module.train_finite, []

    def interrupted(*args, **kwargs):
        calls.append(args[0].width)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return train(*args, **kwargs)

    for folder in (tmp_path, None):
        calls.clear()
        monkeypatch.setattr(module, "train_finite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            family.train(regression(), folder=folder, progress=False)
        resumed = family.train(regression(), folder=folder, progress=False)
        assert calls == [8, 8, 16, 16, 16]
        for one, two in zip(whole.runs, resumed.runs, strict=True):
            np.testing.assert_array_equal(one.trajectory.predictions, two.trajectory.predictions)
    assert not shelf._IN_MEMORY


def test_damaged_runs_are_trained_again(tmp_path):
    family = Family(NET, ww.NTK(), ww.GradientDescent(steps=5), widths=(8, math.inf), seeds=1)
    before = family.train(regression(), folder=tmp_path, progress=False)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    after = family.train(regression(), folder=tmp_path, progress=False)
    np.testing.assert_array_equal(
        before.runs[0].trajectory.predictions, after.runs[0].trajectory.predictions
    )


@pytest.mark.parametrize(
    "member",
    [
        Member(NET, 16, ww.MuP(), ww.GradientDescent(steps=4)),
        Member(NET, math.inf, ww.NTK(), ww.GradientFlow()),
        Member(NET, math.inf, ww.NTK(), ww.GradientDescent(steps=4, batch_size=7)),
        Member(NET, math.inf, ww.NTK(), ww.Posterior()),
    ],
    ids=repr,
)
def test_runs_are_saved_and_loaded(member, tmp_path):
    data = regression()
    run = member.train(data)
    run.save(tmp_path / "run")
    again = ww.Run.load(tmp_path / "run")
    x = data.x_test
    finite = math.isfinite(member.width)
    one, two = (r.predict(x, covariance=not finite) for r in (run, again))
    np.testing.assert_array_equal(one.value, two.value)
    assert (one.std is None) == finite
    np.testing.assert_allclose(run.trajectory.predictions[-1], one.value, rtol=1e-5, atol=1e-6)
    (tmp_path / "run").write_bytes((tmp_path / "run").read_bytes()[:-50])
    with pytest.raises(ValueError, match="cut off"):
        ww.Run.load(tmp_path / "run")


@pytest.mark.slow
def test_default_step_size_is_the_largest_stable_one_times_the_safety():
    data = classes()
    for scaling in (ww.NTK(), ww.MuP(), ww.Standard(), ww.MeanField()):
        half = Family(NET, scaling, ww.GradientDescent(steps=1), widths=(8,), seeds=1)
        tenth = dataclasses.replace(half, learner=ww.GradientDescent(steps=1, safety=0.1))
        one, two = (family.train(data, progress=False).lr for family in (half, tenth))
        assert two is not None
        assert one == pytest.approx(5 * two)
    lazy = Family(NET, ww.NTK(), ww.GradientDescent(steps=1), widths=(8,), seeds=1)
    kernel = ww.kernel_matrix(NET, data.x_train).ntk
    expected = 0.5 * 2 * len(kernel) / np.linalg.eigvalsh(kernel)[-1]
    assert lazy.train(data, progress=False).lr == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scaling", cases([ww.MuP()], [ww.NTK()]), ids=repr)
def test_default_steps_train_and_ten_times_more_do_not(scaling):
    """At finite width, under gradient descent and Adam."""
    data = classes()
    for learner in (ww.GradientDescent(steps=60), ww.Adam(steps=60)):
        run = Member(NET, 256, scaling, learner).train(data)
        losses = run.trajectory.train_loss
        assert losses[-1] < 0.5 * losses[0]
    learner: Any = Member(NET, 256, scaling, ww.GradientDescent(steps=1)).train(data).learner
    with pytest.raises(Diverged, match="lower lr"):
        Member(NET, 256, scaling, ww.GradientDescent(steps=300, lr=60 * learner.lr)).train(data)


def test_what_cannot_be_trained_is_refused_by_name():
    data = classes()
    with pytest.raises(EmptyCell, match="use weight_decay, not ridge.*projection=400"):
        Member(NET, math.inf, ww.MuP(), ww.GradientDescent(ridge=0.1)).train(data)
    with pytest.raises(EmptyCell, match="leave weight_decay out"):
        Member(NET, math.inf, ww.NTK(), ww.Adam(weight_decay=0.1)).train(data)
    with pytest.raises(EmptyCell, match="width=inf"):
        Member(NET, 64, ww.NTK(), ww.GradientFlow()).train(data)
    with pytest.raises(EmptyCell, match="ridge"):
        learner = ww.GradientDescent(weight_decay=0.1)
        Member(NET, math.inf, ww.NTK(), learner).train(data)
    with pytest.raises(ValueError, match="blows up"):
        Member(NET, 64, ww.ABC(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(0, 0, 0)), ww.GradientDescent())
    with pytest.raises(ValueError, match="classes"):
        learner = ww.GradientDescent(loss="cross_entropy")
        Member(NET, 64, ww.NTK(), learner).train(regression())
    with pytest.raises(ValueError, match="lr"):
        learner = ww.GradientDescent(lr=1e6)
        Member(NET, math.inf, ww.NTK(), learner).train(data)


def test_to_the_end_of_a_flow_with_rows_that_stand_twice():
    """A singular kernel: the end is that of long finite times, and equal rows meet their mean."""
    x = np.random.default_rng(0).normal(size=(9, 3))
    x = np.concatenate([x, x[:1]])
    y = np.sin(x[:, 0]) + np.eye(10)[0]
    data = Data.of(x, y[:, None], x, y[:, None], task="regression")
    end, late = (
        Member(NET, math.inf, ww.NTK(), ww.GradientFlow(time)).train(data)
        for time in (math.inf, 1e8)
    )
    one, two = (run.predict(x, covariance=True) for run in (end, late))
    assert one.std is not None and two.std is not None
    np.testing.assert_allclose(one.value, two.value, atol=1e-6)
    np.testing.assert_allclose(one.value[[0, 9], 0], y[[0, 9]].mean(), atol=1e-6)
    np.testing.assert_allclose(one.std, two.std, atol=1e-5)
    assert "singular" in end.notes[0]


@pytest.mark.slow
def test_layers_that_are_not_trained_stay():
    frozen = Dense(lr_multiplier=0) >> Relu() >> Dense() >> Relu() >> Readout()
    run: Any = Member(frozen, 32, ww.NTK(), ww.GradientDescent(steps=5)).train(regression())
    start = run.state.net.draw(initial_key(0))
    np.testing.assert_array_equal(run.state.parameters[0].weight, start[0].weight)
    assert np.abs(run.state.parameters[2].weight - start[2].weight).max() > 0
    family = Family(frozen, ww.NTK(), ww.GradientDescent(steps=15), (64, 256, 1024, math.inf), 3)
    runs = family.train(classes(), progress=False)
    law = fit_power(np.array(runs.widths, dtype=float), gaps_of(runs).predictions)
    assert -0.7 < law.exponent < -0.3, law


def test_power_laws_are_resolved_or_say_why_not():
    widths = np.array([64.0, 256.0, 1024.0])
    clean = widths[:, None] ** -0.5 * np.array([[1.0, 1.1, 0.9]])
    assert fit_power(widths, clean).resolved
    assert fit_power(widths, clean).exponent == pytest.approx(-0.5)
    assert "line" in fit_power(widths, np.array([[1.0] * 3, [0.2] * 3, [0.9] * 3])).reason
    assert "shrink" in fit_power(widths, np.ones((3, 3)) * 0.3).reason
    assert "three widths" in fit_power(widths[:2], clean[:2]).reason
    assert "two seeds" in fit_power(widths, clean[:, :1]).reason
    noisy = clean ** np.array([[0.1, 1.0, 2.2]])
    assert "uncertain" in fit_power(widths, noisy).reason
    assert "not resolved" in str(fit_power(widths, clean * 0.0))
    jackknife = fit_statistic(widths, clean.mean(axis=1), clean)
    assert jackknife.resolved and jackknife.uncertainty < 1e-9
