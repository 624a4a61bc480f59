"""KernelRenormalisation: which of three theories describes finite posteriors, where it is known."""

import math
from typing import Any

import numpy as np
import pytest

import widthwise as ww
from widthwise.data import Data
from widthwise.family import Family
from widthwise.finite.deep_linear import scale_mixture
from widthwise.finite.deep_linear.features import passed_on, second_moments
from widthwise.inference import Sampling
from widthwise.limits.proportional import proportional
from widthwise.limits.proportional.action import orders_behind
from widthwise.measure import KernelRenormalisation
from widthwise.measure.theories import Setting, theories
from widthwise.network import Dense, Readout, Relu
from widthwise.problem import pose

NET = Dense(weight_variance=1.0) >> Readout(weight_variance=1.0)
DEEP = Dense(weight_variance=1.0) >> NET


def along(rows: int, fit: float) -> Data:
    """Inputs of kernel I, and targets with y^T K^-1 y = fit."""
    x, y = math.sqrt(rows) * np.eye(rows), np.full((rows, 1), math.sqrt(fit / rows))
    return Data.of(x, y, x, y, task="regression")


def drawn(rng, rows: int = 6, columns: int = 9, outputs: int = 1) -> Data:
    x, y = rng.normal(size=(rows + 3, columns)), rng.normal(size=(rows + 3, outputs))
    return Data.of(x[:rows], y[:rows], x[rows:], y[rows:], task="regression")


@pytest.mark.parametrize(
    "rows, width, fit, exact, machine, saddle",
    [(4, 12, 10, 1.5916, 1.4798, 1.5552), (4, 40, 10, 1.2047, 1.1858, 1.1977),
     (20, 40, 30, 1.6379, 1.4813, 1.6264)],
)  # fmt: skip
def test_three_theories_of_one_linear_layer(rows, width, fit, exact, machine, saddle):
    """Along the targets, where all are known in closed form; the proportional limit is nearest."""
    data = along(rows, fit)
    family = Family(NET, ww.NTK(), ww.Posterior(noise=1e-7), (width,), 1)
    runs: Any = family.train(data, progress=False)
    (run,) = runs.runs
    known = theories(Setting.of(run, pose(data, "mse")))
    kernels = [run.trajectory.kernels["1 Dense(weight_variance=1.0)"][1]]
    kernels += [known[name].kernel for name in ("deep kernel machine", "proportional limit")]
    y = data.y_train
    found = [(y.T @ kernel @ y).item() / fit for kernel in kernels]
    np.testing.assert_allclose(found, [exact, machine, saddle], atol=2e-4)
    finding = KernelRenormalisation()(runs)
    row = dict(zip(finding.table.columns, finding.table.rows[0], strict=True))
    assert row["nearest"] == "proportional limit" and row["rows / width"] == rows / width
    away = [row[f"distance to {name}"] for name in ("proportional limit", "deep kernel machine")]
    assert away[0] < away[1] < row["distance to NNGP"]
    assert f"at width {width}" in finding.sentence and "heuristic" not in finding.sentence


def test_without_noise_the_variance_is_the_scale_of_the_kernel(rng):
    data = drawn(rng)
    learner = ww.Posterior(noise=1e-8)
    runs: Any = Family(DEEP, ww.NTK(), learner, (500, 2000, 8000), 1).train(data, progress=False)
    finding = KernelRenormalisation()(runs)
    kernel = data.x_train @ data.x_train.T / 9
    for width, row in zip(runs.widths, finding.table.rows, strict=True):
        told = dict(zip(finding.table.columns, row, strict=True))
        scale = scale_mixture(kernel, data.y_train, (width, width), 1e-8).moment(1)
        np.testing.assert_allclose(told["variance / NNGP's"], scale, rtol=1e-4)
        saddle = proportional(kernel, data.y_train, (width, width), 1e-8).order.item()
        np.testing.assert_allclose(told["as the proportional limit has it"], saddle, rtol=1e-4)
        assert told["hidden layers"] == 2
    moved = [row[3] for row in finding.table.rows]
    assert 3 < moved[0] / moved[1] < 5 and 3 < moved[1] / moved[2] < 5  # like 1 / width
    (panel,) = finding.panels
    assert [series.label for series in panel.series][0] == "NNGP"


def test_copies_are_outputs_with_the_same_targets(rng):
    """The order parameter of two copies, found as a whole."""
    data, width = drawn(rng), 20
    problem = pose(data, "mse")
    found = theories(Setting(DEEP, width, ww.NTK(), 0.1, 2.0, problem))["proportional limit"]
    kernel, cross, prior = (
        a @ b.T / 9
        for a, b in ((data.x_train,) * 2, (data.x_test, data.x_train), (data.x_test,) * 2)
    )
    whole = proportional(kernel, np.hstack([data.y_train] * 2), (width, width), 0.1)
    behind = [np.linalg.inv(order)[None] for order in orders_behind(whole.order, (width, width))]
    taught = second_moments(whole.problem, np.ones(1), whole.order[None], behind, cross, prior)
    wanted = passed_on(taught, 2, (width, width), prior)[-1]
    np.testing.assert_allclose(found.kernel, wanted, rtol=1e-5)
    square = whole.predict(cross, np.diagonal(prior).copy()).covariance
    assert square is not None
    np.testing.assert_allclose(found.variance, np.mean(square[:, 0, 0]), rtol=1e-5)


def test_factors_of_the_order_parameter():
    q = np.array([[2.0, 0.3], [0.3, 0.8]])
    first, second = orders_behind(q, (10, 30))
    np.testing.assert_allclose(first, q, rtol=1e-12)
    # N_l (q_l - 1) is the same number in both layers, for each eigenvalue
    outer = np.linalg.solve(second, q)
    np.testing.assert_allclose(10 * (outer - np.eye(2)), 30 * (second - np.eye(2)), rtol=1e-10)


def test_what_cannot_be_measured_is_said(rng):
    learner = ww.Posterior(noise=0.1)
    alone = Family(NET, ww.NTK(), learner, (math.inf,)).train(drawn(rng), progress=False)
    assert "No finite width" in KernelRenormalisation()(alone).sentence
    flat = Family(Readout(), ww.NTK(), learner, (4,), 1).train(drawn(rng), progress=False)
    assert "no hidden layer" in KernelRenormalisation()(flat).sentence
    other = Family(NET, ww.NTK(), ww.GradientDescent(steps=2, lr=0.1), (4,), 1)
    finding = KernelRenormalisation()(other.train(drawn(rng), progress=False))
    assert "use Posterior()" in finding.sentence
    vanishing = Family(NET, ww.Richness(0.25), learner, (4,), 1).train(drawn(rng), progress=False)
    assert "knows no such network" in KernelRenormalisation()(vanishing).sentence


def test_several_outputs(rng):
    runs = Family(NET, ww.NTK(), ww.Posterior(noise=0.1), (20,), 3).train(
        drawn(rng, outputs=2), progress=False
    )
    finding = KernelRenormalisation()(runs)
    row = dict(zip(finding.table.columns, finding.table.rows[0], strict=True))
    assert row["± over seeds"] > 0
    assert row["distance to NNGP"] > row["distance to proportional limit"]


@pytest.mark.slow
def test_replicated_outputs_are_the_machines_and_nonlinear_ones_say_heuristic(rng):
    learner = ww.Posterior(noise=0.1, sampling=Sampling(draws=500))
    runs = Family(NET, ww.MuP(), learner, (16, 64), 2).train(drawn(rng), progress=False)
    finding = KernelRenormalisation()(runs)
    away = np.array([row[3:6] for row in finding.table.rows], dtype=float)
    assert all(row[-1] == "deep kernel machine" for row in finding.table.rows)
    assert away[1, 1] < 0.5 * away[0, 1] and away[1, 1] < 2 / 64  # like 1 / width
    bent = Dense() >> Relu() >> Readout()
    runs = Family(bent, ww.NTK(), learner, (16,), 2).train(drawn(rng), progress=False)
    assert "is a heuristic" in KernelRenormalisation()(runs).sentence
