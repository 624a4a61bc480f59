"""Finite pi-networks and their limit, against the authors' runs from the same initial weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from widthwise import Dense, GradientDescent, MuP, Projection, Readout, Relu
from widthwise.finite import FiniteNetwork, train
from widthwise.limits import lookup
from widthwise.measure.power import fit_power
from widthwise.network.projected import Coefficients, ProjectedStart
from widthwise.problem import Problem
from widthwise.projection import Storage

FOLDER = Path(__file__).parent / "rich"
RMS = json.loads((FOLDER / "pi.json").read_text())["finite_vs_inf"]
# the authors' multipliers are 1 everywhere, on 64 inputs of size 1
NET = (
    Dense(weight_variance=64.0, bias_multiplier=0.0) >> Relu()
    >> Dense(weight_variance=1.0, bias_multiplier=0.0) >> Relu()
    >> Readout(weight_variance=1.0, bias_multiplier=0.0)
)  # fmt: skip


@pytest.fixture
def known(monkeypatch):
    """Their initial weights and batches stand where ours are drawn."""
    found = np.load(FOLDER / "finite_vs_inf.npz")
    start = ProjectedStart(
        found["init_A1"],
        (Coefficients(found["init_A2"], found["init_B2"]),
         Coefficients(found["init_A3"], found["init_B3"])),
        (np.zeros(16), np.zeros(16), np.zeros(10)),
    )  # fmt: skip
    for module in ("widthwise.finite.train", "widthwise.limits.pi.limit"):
        monkeypatch.setattr(sys.modules[module], "projected_start", lambda *_: start)
        monkeypatch.setattr(sys.modules[module], "batches", lambda *_: found["idx"])
    return found


def problem() -> Problem:
    raw, labels = load_digits(return_X_y=True)
    x, y = np.asarray(raw) / 16, np.eye(10)[labels]
    x = (x - x.mean()) / x.std()
    return Problem(x, y, x[1000:1064], y[1000:1064], 0.0, "classification")


def learner(storage: Storage = "float32") -> GradientDescent:
    return GradientDescent(
        lr=0.5, steps=60, batch_size=32, loss="cross_entropy",
        projection=Projection(16, storage=storage),
    )  # fmt: skip


@pytest.mark.slow
def test_the_limit_is_theirs(known):
    limit = lookup(NET, MuP(), learner("float64"))
    found = limit.prepare(problem(), order=0, logs=2).train().trajectory.predictions[-1]
    np.testing.assert_allclose(found, known["inf_test_out"], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_networks_are_as_far_from_it_as_theirs(known):
    widths, gaps = (64, 256, 1024), []
    for width in widths:
        size = FiniteNetwork(NET, width, 64, 10, MuP())
        own = [
            train(size, problem(), learner(), lr=0.5, seed=seed, order=0, logs=2)[1]
            for seed in range(6)
        ]
        apart = [run.predictions[-1] - known["inf_test_out"] for run in own]
        gaps.append([np.sqrt(np.mean(gap**2)) for gap in apart])
        theirs = RMS[str(width)]
        error = theirs["rms_std"] * np.sqrt(1 / 6 + 1 / theirs["seeds"])
        assert abs(np.mean(gaps[-1]) - theirs["rms_mean"]) < 4 * error
    assert -0.65 < fit_power(np.array(widths, float), np.array(gaps)).exponent < -0.35
