"""Linear finite members under Posterior: exact mixtures, against drawn weights and closed forms."""

import math
from typing import Any

import numpy as np
import pytest

import widthwise as ww
from widthwise.data import Data, from_arrays
from widthwise.family import Family, Member
from widthwise.finite.deep_linear import evidence_grid, outputs_mixture, scale_mixture
from widthwise.finite.deep_linear.features import gram_matrices
from widthwise.finite.posterior import MixtureState
from widthwise.kernels import kernel_matrix
from widthwise.measure.power import fit_power
from widthwise.network import Dense, Identity, Readout

NOISE, ROWS, INPUTS = 0.3, 3, 4
NET = Dense(weight_variance=1.5) >> Identity() >> Dense(times=2) >> Readout()


def data(outputs: int = 1, rows: int = 20, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    y = x @ rng.normal(size=(5, outputs)) / 2 + 0.3 * rng.normal(size=(rows, outputs))
    return from_arrays(x, y[:, 0] if outputs == 1 else y, task="regression", test=6)


@pytest.mark.parametrize(
    "widths, outputs", [((3,), 1), ((2, 3, 2), 1), ((3,), 2), ((4, 3), 2), ((1, 3), 2)]
)
def test_gram_matrices_are_those_of_drawn_weights(widths, outputs, rng):
    """5 standard errors of weights drawn from the prior; rows are training rows and a new one."""
    x, count = rng.normal(size=(ROWS + 1, INPUTS)), 60_000
    y = rng.normal(size=(ROWS, outputs))
    signal, drawn = np.broadcast_to(x.T, (count, INPUTS, ROWS + 1)), []
    for before, after in zip((INPUTS, *widths), (*widths, outputs), strict=True):
        signal = rng.normal(size=(count, after, before)) @ signal / math.sqrt(before)
        drawn.append(signal.swapaxes(1, 2) @ signal / after)
    apart = signal[:, :, :ROWS].swapaxes(1, 2) - y
    logs = -np.sum(apart**2, axis=(1, 2)) / (2 * NOISE)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()

    kernel = x @ x.T / INPUTS
    posed = kernel[:ROWS, :ROWS], y, widths, NOISE
    found: Any = scale_mixture(*posed) if outputs == 1 else outputs_mixture(*posed, samples=20_000)
    grams = gram_matrices(found, widths, kernel[:, :ROWS], kernel)
    for gram, own in zip(grams, drawn[:-1], strict=True):
        mean = np.tensordot(weights, own, 1)
        error = np.sqrt(np.tensordot(weights**2, (own - mean) ** 2, 1))
        assert (np.abs(gram - mean) < 5 * error + 0.01 * np.abs(kernel).max()).all()
        assert np.abs(gram - kernel).max() > 5 * error.max()  # it has moved


@pytest.mark.parametrize(
    "rows, width, fit, wanted",
    [(4, 12, 10, 1.5916), (4, 40, 10, 1.2047), (20, 40, 30, 1.6379), (2, 200, 6, 1.0247)],
)
def test_learned_kernels_of_one_layer_are_the_closed_form(rows, width, fit, wanted):
    """Along the targets, and (N - 1) / N across them."""
    x, y = math.sqrt(rows) * np.eye(rows), np.full((rows, 1), math.sqrt(fit / rows))
    net = Dense(weight_variance=1.0) >> Readout(weight_variance=1.0)
    plain = Data.of(x, y, x, y, task="regression")
    run = Member(net, width, ww.NTK(), ww.Posterior(noise=1e-7)).train(plain)
    (before, after) = run.trajectory.kernels["1 Dense(weight_variance=1.0)"]
    np.testing.assert_allclose(before, np.eye(rows), atol=1e-12)
    assert abs((y.T @ after @ y).item() / fit - wanted) < 6e-5
    across = np.eye(rows)[0] - np.eye(rows)[1]
    np.testing.assert_allclose(across @ after @ across / 2, 1 - 1 / width, atol=1e-5)


def test_a_member_is_the_mixture_of_its_widths():
    found = data()
    run: Any = Member(NET, 8, ww.NTK(), ww.Posterior(noise=0.1)).train(found)
    assert isinstance(run.state, MixtureState)
    kernel, cross, prior = (
        kernel_matrix(NET, *rows).nngp
        for rows in ((found.x_train,), (found.x_test, found.x_train), (found.x_test,))
    )
    mixture = scale_mixture(kernel, found.y_train, (8, 16), 0.1)
    wanted: Any = mixture.predict(cross, prior)
    predicted = run.predict(found.x_test, covariance=True)
    np.testing.assert_allclose(predicted.value, wanted.value, rtol=1e-10)
    np.testing.assert_allclose(predicted.covariance, wanted.covariance, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(run.trajectory.predictions[-1], wanted.value, rtol=1e-10)
    assert run.state.log_evidence == pytest.approx(mixture.log_evidence)
    assert f"The log evidence of width 8 is {mixture.log_evidence:.6g}" in run.notes[-1]
    assert "hanin2023" in run.sources[-1]
    losses = run.trajectory.test_loss
    np.testing.assert_allclose(losses[0], 0.5 * np.mean(found.y_test**2))
    np.testing.assert_allclose(losses[1], 0.5 * np.mean((wanted.value - found.y_test) ** 2))


def test_seeds_agree_for_one_output_and_differ_for_several():
    learner = ww.Posterior(noise=0.2)
    one, two = (
        [Member(NET, 6, ww.NTK(), learner).train(found, seed=seed) for seed in (0, 1)]
        for found in (data(), data(2))
    )
    np.testing.assert_array_equal(one[0].predict(np.eye(5)).value, one[1].predict(np.eye(5)).value)
    values = [run.predict(np.eye(5)).value for run in two]
    assert 0 < np.abs(values[0] - values[1]).max() < 0.1
    again = Member(NET, 6, ww.NTK(), learner).train(data(2), seed=0).predict(np.eye(5)).value
    np.testing.assert_array_equal(values[0], again)


def test_several_outputs_have_a_covariance_between_them(tmp_path):
    found = data(2)
    run: Any = Member(NET, 6, ww.NTK(), ww.Posterior(noise=0.2)).train(found)
    predicted: Any = run.predict(found.x_test, covariance=True)
    assert predicted.covariance.shape == (6, 2, 2) and predicted.std.shape == (6, 2)
    kernel, cross = (
        kernel_matrix(NET, x, found.x_train).nngp for x in (found.x_train, found.x_test)
    )
    wanted = outputs_mixture(kernel, found.y_train, (6, 12), 0.2)
    variance = np.diagonal(kernel_matrix(NET, found.x_test).nngp).copy()
    own: Any = wanted.predict(cross, variance)
    np.testing.assert_allclose(predicted.value, own.value, rtol=1e-9)
    np.testing.assert_allclose(predicted.covariance, own.covariance, rtol=1e-8, atol=1e-12)
    run.save(tmp_path / "run")
    again = ww.Run.load(tmp_path / "run").predict(found.x_test, covariance=True)
    np.testing.assert_array_equal(again.covariance, predicted.covariance)
    assert "weighted draws" in run.notes[-1]


def test_the_gap_to_the_gaussian_process_shrinks_like_one_over_the_width():
    family = Family(NET, ww.NTK(), ww.Posterior(noise=0.1), (32, 128, 512, 2048, math.inf), 1)
    runs: Any = family.train(data(), progress=False)
    limit = runs.limit.predict(runs.data.x_test, covariance=True)
    names = list(runs.limit.trajectory.kernels)
    gaps = []
    for width in runs.widths:
        (run,) = runs.at(width)
        found = run.predict(runs.data.x_test, covariance=True)
        own, others = (x.trajectory.kernels[names[-1]][1] for x in (run, runs.limit))
        gaps.append([
            np.abs(found.value - limit.value).max(),
            np.abs(found.covariance - limit.covariance).max(),
            np.abs(own - others).max(),
        ])  # fmt: skip
    for column in np.array(gaps).T:
        law = fit_power(np.array(runs.widths[1:], float), column[1:, None])
        assert -1.1 < law.exponent < -0.9, law


def test_noise_that_is_not_given_has_the_largest_evidence():
    found = data()
    run: Any = Member(NET, 8, ww.NTK(), ww.Posterior()).train(found)
    best = run.learner.noise
    assert best == run.state.noise and f"noise variance of {best:.3g} at width 8" in run.notes[0]
    kernel = kernel_matrix(NET, found.x_train).nngp
    evidence = [
        scale_mixture(kernel, found.y_train, (8, 16), factor * best).log_evidence
        for factor in (0.9, 1.0, 1.1)
    ]
    assert max(evidence) == evidence[1] == pytest.approx(run.state.log_evidence)
    several = Member(NET, 6, ww.NTK(), ww.Posterior()).train(data(2))
    limit: Any = Member(NET, math.inf, ww.NTK(), ww.Posterior()).train(data(2))
    assert several.learner.noise == pytest.approx(limit.state.noise)  # type: ignore[attr-defined]
    assert "for the NNGP" in several.notes[0]


def test_width_and_depth_are_chosen_by_the_evidence_of_members():
    """A family's states have the numbers of `evidence_grid`; width inf is the Gaussian process."""
    found, widths, depths = data(rows=26), (4, 64), (0, 1, 3)
    table = np.zeros((2, 3))
    for column, depth in enumerate(depths):
        net = Readout(weight_variance=1.0)
        for _ in range(depth):
            net = Dense(weight_variance=1.0) >> net
        for row, width in enumerate(widths):
            run: Any = Member(net, width, ww.NTK(), ww.Posterior(noise=0.1)).train(found)
            table[row, column] = run.state.log_evidence
    kernel = found.x_train @ found.x_train.T / 5
    grid = evidence_grid(kernel, found.y_train, widths, depths, 0.1)
    np.testing.assert_allclose(table, grid.log_evidence, rtol=1e-10)


def test_a_vanishing_prior_is_that_of_its_width():
    """Under Richness(1/4) outputs of width n have n^-1/2 of the NNGP's variance."""
    found = data()
    run: Any = Member(NET, 16, ww.Richness(0.25), ww.Posterior(noise=0.1)).train(found)
    kernel = kernel_matrix(NET, found.x_train).nngp / math.sqrt(16)
    wanted = scale_mixture(kernel, found.y_train, (16, 32), 0.1).log_evidence
    assert run.state.log_evidence == pytest.approx(wanted)


@pytest.mark.slow
def test_instruments_and_the_report_serve_exact_members(tmp_path):
    family = Family(NET, ww.NTK(), ww.Posterior(noise=0.1), (4, 16, 64, math.inf), seeds=2)
    runs: Any = family.train(data(), progress=False)
    assert len(runs.runs) == 7 and not runs.open_cells
    assert "lazy" in ww.measure.FeatureMovement()(runs).sentence
    finding = ww.measure.Consistency()(runs)
    gaps = finding.numbers["gaps"]
    assert gaps[0][0] > gaps[-1][0] > 0
    assert "Gap while training" not in [panel.title for panel in finding.panels]
    page = tmp_path / "report.html"
    ww.report(runs, page)
    assert "Kernel renormalisation" in page.read_text()
