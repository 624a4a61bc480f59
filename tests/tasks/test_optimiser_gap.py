"""The optimiser's gap: equal starts, step sizes inside their grid, resumed, told honestly."""

import json
import math

import numpy as np
import pytest

import widthwise as ww
from widthwise.cli import main
from widthwise.data import DataError
from widthwise.limits.base import EmptyCell
from widthwise.problem import Diverged
from widthwise.tasks.optimiser_gap import OptimiserGap, Tuned, finding_of, methods, study
from widthwise.tasks.optimiser_gap.methods import (
    DESCENT,
    FINITE,
    HEAVY_BALL,
    LIMIT,
    LINEARISED,
    MOVING,
    REGRESSION,
    AbstractMethod,
)
from widthwise.tasks.optimiser_gap.outcome import Outcome, Trained, split_of

NETWORK = ww.Dense() >> ww.Relu() >> ww.Readout()
LEARNER = ww.Adam(steps=6, batch_size=20, eps=1e-3)
SMALL = OptimiserGap(NETWORK, LEARNER, width=16, seeds=2, sizes=3, samples=1024)


@pytest.fixture(scope="module")
def data():
    return ww.data.load("iris")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gap") / "runs"


@pytest.fixture(scope="module")
def found(data, folder):
    return SMALL.run(data, folder)


def test_all_methods_start_from_one_function_and_choose_inside(found):
    assert list(found) == [FINITE, MOVING, LINEARISED, LIMIT, DESCENT, HEAVY_BALL, REGRESSION]
    for seed in range(2):
        wanted = found[FINITE].best[seed].train_loss[0]
        for name in (LINEARISED, LIMIT, DESCENT, HEAVY_BALL, REGRESSION):
            assert found[name].best[seed].train_loss[0] == pytest.approx(wanted, rel=1e-5)
    assert found[FINITE].best[0].train_loss[0] != found[FINITE].best[1].train_loss[0]
    for tuned in found.values():
        assert tuned.inside and len(tuned.best) == 2
        assert min(one.validation_loss for one in tuned.tried) == tuned.best[0].validation_loss


def test_the_same_call_reads_what_is_there(data, folder, found, monkeypatch):
    files = sorted(folder.glob("*.outcome"))
    files[0].write_bytes(files[0].read_bytes()[:100])  # cut off: that one is trained again
    trained, train = [], study._One._train

    def counted(self, lr, seed):
        trained.append(self._name)
        return train(self, lr, seed)

    monkeypatch.setattr(study._One, "_train", counted)
    again = SMALL.run(data, folder)
    assert len(trained) == 1
    for name, tuned in found.items():
        for one, other in zip(again[name].best, tuned.best, strict=True):
            np.testing.assert_array_equal(one.train_loss, other.train_loss)
            assert one.test_score == other.test_score


def test_the_finding_holds_every_method(found):
    finding = finding_of(found)
    assert [row[0] for row in finding.table.rows] == list(found)
    assert finding.numbers["training loss"]["share_closed"][FINITE] == 1
    assert finding.numbers["training loss"]["share_closed"][DESCENT] == 0
    assert len(finding.panels[0].series) == 6 and len(finding.panels[1].series) == 6


def outcome(loss, score, seed):
    steps, lost = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.5, loss])
    return Outcome(0.1, seed, steps, lost, 1.0, 1.0, score, 1.0)


def told(**methods_):
    """Methods whose seeds differ by a common amount, as seeds do, and a little of their own."""
    rng = np.random.default_rng(0)
    found = {}
    for name in (FINITE, LINEARISED, LIMIT, DESCENT, HEAVY_BALL, REGRESSION):
        loss, score = methods_[name]
        best = tuple(
            outcome(loss * math.exp(0.3 * s + 0.01 * rng.standard_normal()),
                    score + 0.02 * s + 0.001 * rng.standard_normal(), s)
            for s in range(5)
        )  # fmt: skip
        found[name] = Tuned(best[:1], best)
    return finding_of(found)


def test_the_claim_is_judged_with_its_controls():
    both = {FINITE: (0.01, 0.9), LINEARISED: (0.01, 0.9), REGRESSION: (1e-9, 0.9)}
    holds = told(**both, **{LIMIT: (0.0101, 0.9), DESCENT: (0.1, 0.8), HEAVY_BALL: (0.05, 0.82)})
    for numbers in holds.numbers.values():
        assert numbers["verdict"] == "the claim holds"
        assert numbers["share_closed"][LIMIT] == pytest.approx(1, abs=0.05)
    assert holds.numbers["test score"]["share_closed"][HEAVY_BALL] == pytest.approx(0.2, abs=0.05)
    assert "momentum without Adam closes" not in holds.sentence
    momentum = told(**both, **{LIMIT: (0.01, 0.9), DESCENT: (0.1, 0.8), HEAVY_BALL: (0.008, 0.9)})
    assert momentum.sentence.count("momentum without Adam closes the gap too") == 2
    fails = told(**both, **{LIMIT: (0.06, 0.84), DESCENT: (0.1, 0.8), HEAVY_BALL: (0.05, 0.82)})
    for numbers in fails.numbers.values():
        assert numbers["verdict"] == "the claim holds in part"
    none = told(**both, **{LIMIT: (0.01, 0.9), DESCENT: (0.009, 0.9), HEAVY_BALL: (0.009, 0.9)})
    for numbers in none.numbers.values():
        assert numbers["verdict"] == "there is no gap to explain"


def test_rows_held_out_are_no_training_rows(data):
    split = split_of(data, "mse", 30, seed=1)
    assert split.held_out == 30 and len(split.problem.x_train) == len(data.x_train) - 30
    both = np.concatenate([split.problem.x_train, split.problem.x_test[:30]])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(data.x_train, axis=0))
    np.testing.assert_array_equal(split.problem.x_test[30:], data.x_test)
    with pytest.raises(DataError, match="to be held out"):
        split_of(data, "mse", len(data.x_train) - 1, seed=0)


def test_what_cannot_be_compared_is_refused_before_anything_trains(data, tmp_path, monkeypatch):
    def trains(*_):
        raise AssertionError("something trained")

    monkeypatch.setattr(study._One, "_train", trains)
    with pytest.raises(ValueError, match="the question is about Adam"):
        OptimiserGap(learner=ww.GradientDescent())
    with pytest.raises(ValueError, match="sizes of OptimiserGap is 2: give a whole number"):
        OptimiserGap(sizes=2)
    with pytest.raises(ValueError, match="decays weights, which kernels have none of"):
        OptimiserGap(NETWORK, ww.Adam(steps=5, weight_decay=0.1))
    normed = OptimiserGap(ww.Dense() >> ww.LayerNorm() >> ww.Relu() >> ww.Readout(), LEARNER)
    with pytest.raises(EmptyCell, match="plain stacks"):
        normed.run(data, tmp_path)


def test_step_sizes_that_all_diverge_are_named(data, tmp_path):
    wild = OptimiserGap(NETWORK, ww.Adam(steps=5, lr=1e30), width=8, sizes=3)
    with pytest.raises(Diverged, match="finite, Adam diverged at every step size from"):
        wild.run(data, tmp_path)


class Brittle(AbstractMethod):
    """Best at step size 1, where seed 1 diverges."""

    def check(self, problem):
        pass

    def first_step(self, problem):
        return 1.0

    def on(self, problem):
        def train(lr, seed):
            if (lr, seed) == (1.0, 1):
                raise Diverged("past what is stable")
            share = {1.0: 0.9, 0.5: 0.5}.get(lr, 0.1)
            return Trained(np.arange(2.0), np.array([1.0, 0.5]), share * problem.y_test)

        return train


def test_a_step_size_at_which_one_seed_diverges_is_not_taken(data, tmp_path):
    split, method = split_of(data, "mse", None, 0), Brittle(NETWORK, 16, LEARNER)
    tuned = study._One(SMALL, "brittle", method, split, tmp_path, "iris").tuned(lambda: None)
    assert [one.lr for one in tuned.best] == [0.5, 0.5]
    assert not any(one.diverged for one in tuned.best)


def test_cross_entropy_has_no_end():
    known = methods.methods_of(NETWORK, 16, ww.Adam(loss="cross_entropy"), 1024)
    assert REGRESSION not in known and known[DESCENT].learner.loss == "cross_entropy"


@pytest.mark.slow
def test_the_command_goes_on_and_writes_a_page(found, folder, capsys):
    words = ["optimiser-gap", "iris", "--network", "Dense >> Relu >> Readout", "--width", "16",
             "--learner", "Adam(steps=6, batch_size=20, eps=0.001)", "--seeds", "2", "--sizes", "3",
             "--samples", "1024", "--out", str(folder.parent)]  # fmt: skip
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    main(words)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    shown = capsys.readouterr().out
    assert "7 of 7, NTK, to the end" in shown and finding_of(found).sentence in shown
    page = (folder.parent / "report.html").read_text()
    assert "Choice of the step size" in page and "Sernau" in page
    main([*words, "--json"])
    again = json.loads(capsys.readouterr().out)
    assert again["findings"][0]["instrument"] == "OptimiserGap"
    assert "--width 16" in again["command"] and "--samples 1024" in again["command"]


def test_the_command_refuses_another_learner(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["optimiser-gap", "iris", "--learner", "GradientDescent", "--out", str(tmp_path)])
    assert "the question is about Adam" in capsys.readouterr().err


@pytest.mark.slow
def test_linearised_networks_approach_the_adam_limit():
    """From one initial function each, equal batches and step sizes: rms over rows and seeds."""
    split = split_of(ww.data.load("digits", train=250, test=100), "mse", 50, seed=0)
    learner, widths = ww.Adam(steps=30, batch_size=50, eps=1e-2), (64, 256, 1024)
    gaps = []
    for width in widths:
        own = methods.methods_of(NETWORK, width, learner, 49_152)
        linear, limit = (own[name].on(split.problem) for name in (LINEARISED, LIMIT))
        off = [linear(0.05, s).outputs - limit(0.05, s).outputs for s in range(4)]
        gaps.append(np.sqrt(np.mean(np.square(off))))
    slope = np.polyfit(np.log(widths), np.log(gaps), 1)[0]
    print("gaps", gaps, "slope", slope)
    assert -0.65 < slope < -0.35
