"""Finite members with nonlinearities under Posterior: chains, against weights of the prior."""

import math
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import widthwise as ww
from widthwise.conditioning import condition
from widthwise.data import Data
from widthwise.family import Family, Member
from widthwise.finite import FiniteNetwork
from widthwise.finite.posterior import SampledState, mixture_posterior, sampled_posterior
from widthwise.finite.posterior.diagnostics import Diagnostics, diagnostics
from widthwise.finite.posterior.whitened import Conditioned, Observed, Whitened
from widthwise.inference import Inducing, Sampling
from widthwise.limits import EmptyCell
from widthwise.network import Dense, Flatten, MaxPool, Readout, Relu, Tanh, Unflatten
from widthwise.problem import pose
from widthwise.solve import float64

NOISE = 0.2
X = np.array([[1.0, 0.5], [-0.5, 1.0], [0.8, -1.2]])
Y = np.array([[1.0], [-0.7]])
SMALL = Dense() >> Tanh() >> Readout(weight_variance=1.0, bias_variance=0.3)
PLAIN = Data.of(X[:2], Y, X[1:], np.zeros((2, 1)), task="regression")
SHORT = Sampling(chains=2, warmup=300, draws=1000)


@pytest.fixture(scope="module")
def run() -> Any:
    return Member(SMALL, 3, ww.NTK(), ww.Posterior(noise=NOISE, sampling=SHORT)).train(PLAIN)


def by_weights(network, width: int, rows, targets, copies: int = 1, count: int = 300_000):
    """Outputs (s, n) and features' kernels (s, n, n) of one hidden layer, and weights."""
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(count, width, 2)) @ rows.T * math.sqrt(2.0 / 2)
    features = np.asarray(network(hidden))
    readout = rng.normal(size=(count, copies, width)) / math.sqrt(width)
    bias = math.sqrt(0.3) * rng.normal(size=(count, copies, 1))
    outputs = readout @ features + bias
    logs = -np.sum((outputs[:, :, : len(targets)] - targets[:, 0]) ** 2, axis=(1, 2)) / (2 * NOISE)
    weights = np.exp(logs - logs.max())
    kernels = features.swapaxes(1, 2) @ features / width
    return outputs[:, 0], kernels, weights / weights.sum()


def test_mean_covariance_and_kernels_are_those_of_weighted_draws(run):
    """5 standard errors of the prior's draws and of the chains'."""
    outputs, kernels, weights = by_weights(np.tanh, 3, X, Y)
    found = run.predict(X, covariance=True)
    effective = run.state.diagnostics.effective
    mean = weights @ outputs
    apart = outputs - mean
    wanted = (weights[:, None] * apart).T @ apart
    # of the means over draws, whose spread is at most that of the function
    error = np.sqrt(weights**2 @ apart**2 + np.diagonal(wanted) / effective)
    assert (np.abs(found.value[:, 0] - mean) < 5 * error).all()
    np.testing.assert_allclose(found.covariance, wanted, atol=0.06 * wanted.max())
    prior, learned = run.trajectory.kernels["1 Tanh()"]
    for own, chance in ((prior, np.full(len(weights), 1 / len(weights))), (learned, weights)):
        mean = np.tensordot(chance, kernels[:, 1:, 1:], 1)
        spread = np.sqrt(np.tensordot(chance, (kernels[:, 1:, 1:] - mean) ** 2, 1))
        assert (np.abs(own - mean) < 5 * spread / math.sqrt(0.3 * effective)).all()
    assert np.abs(learned - prior).max() > 0.02


def test_a_run_tells_of_its_chains_and_is_kept(run, tmp_path):
    assert isinstance(run.state, SampledState)
    mixing = run.state.diagnostics
    assert 0.99 < mixing.rhat < 1.02 and 200 < mixing.effective <= 4000
    assert (
        "At width 3, seed 0, 2 chains of 1000 draws after 300 steps of warm-up: split R-hat is"
        in run.notes[0]
    )
    assert f"{mixing.divergences} divergences" in run.notes[0]
    assert "hoffman2014" in run.sources[-1] and run.learner.noise == NOISE
    np.testing.assert_array_equal(run.trajectory.predictions[0], 0)
    np.testing.assert_allclose(run.trajectory.predictions[1], run.predict(X[1:]).value, rtol=1e-9)
    run.save(tmp_path / "run")
    again = ww.Run.load(tmp_path / "run").predict(X, covariance=True)
    np.testing.assert_array_equal(again.covariance, run.predict(X, covariance=True).covariance)
    with pytest.raises(ValueError, match="x has 3 columns and training had 2"):
        run.predict(np.ones((1, 3)))


def test_seeds_decide_and_progress_is_told(run):
    learner, said = ww.Posterior(noise=NOISE, sampling=SHORT), []
    args = (SMALL, 3, ww.NTK(), learner, pose(PLAIN, "mse"))
    again, other = (condition(*args, seed=seed, advance=said.append) for seed in (0, 1))
    np.testing.assert_array_equal(again.state.draws, run.state.draws)  # type: ignore[union-attr]
    assert np.abs(other.state.draws - run.state.draws).min() > 0  # type: ignore[union-attr]
    np.testing.assert_allclose(sum(said), 2.0)


@pytest.mark.parametrize("width, scaling", [(1, ww.NTK()), (6, ww.MuP()), (6, ww.Standard())])
def test_the_readout_is_integrated_out_from_the_smaller_side(width, scaling, rng):
    """2 or 7 features for 3 rows: the Gaussian process on them either way."""
    y = rng.normal(size=(3, 2))
    whitened = Whitened(FiniteNetwork(SMALL, width, 2, 1, scaling))
    with float64():
        z = jnp.asarray(rng.normal(size=whitened.size))
        features = np.asarray(whitened.features(z, jnp.asarray(X)))
        new = features[:2] + 0.1
        found = Conditioned.on(jnp.asarray(features), Observed(X, y, NOISE, 1.0))
        value, covariance = new @ found.weights, found.covariance(jnp.asarray(new))
        evidence = float(found.log_evidence)
        # phi are the hidden features times what the readout's scale is, and a constant
        hidden = whitened.net.features(whitened.parameters(z), jnp.asarray(X))["1 Tanh()"]
    assert features.shape == (3, width + 1)
    np.testing.assert_allclose(features[:, -1], math.sqrt(0.3), rtol=1e-6)
    unit = 1.0 / math.sqrt(width) / (math.sqrt(width) if scaling == ww.MuP() else 1.0)
    np.testing.assert_allclose(features[:, :-1], unit * np.asarray(hidden), rtol=1e-6)
    covered = features @ features.T + NOISE * np.eye(3)
    solved = np.linalg.solve(covered, np.column_stack([y, features @ new.T]))
    np.testing.assert_allclose(value, new @ features.T @ solved[:, :2], rtol=1e-8)
    left = new @ new.T - new @ features.T @ solved[:, 2:]
    np.testing.assert_allclose(covariance, left, rtol=1e-7, atol=1e-12)
    logs = np.sum(y * solved[:, :2]) + 2 * np.linalg.slogdet(covered)[1] + 6 * np.log(2 * np.pi)
    assert evidence == pytest.approx(-0.5 * logs)


def test_diagnostics_see_drift_and_count_correlated_draws(rng):
    steps = rng.normal(size=(4, 4000, 2))
    slow = np.zeros_like(steps)
    for i in range(1, 4000):
        slow[:, i] = 0.8 * slow[:, i - 1] + steps[:, i]
    found = diagnostics(slow, 0)
    assert found.rhat < 1.01
    assert found.effective == pytest.approx(16_000 / 9, rel=0.2)  # (1 - 0.8) / (1 + 0.8)
    drift = steps + np.linspace(0, 2, 4000)[:, None]  # the same in all chains
    assert diagnostics(drift, 0).rhat > 1.1
    apart = steps[:, :, :1] + np.array([0.0, 0.0, 0.0, 1.0])[:, None, None]
    assert diagnostics(apart, 0).rhat > 1.05
    told = Diagnostics(1.2, 30.0, 3).told(SHORT, 7, "At width 3, seed 0")
    assert "have not mixed" in told[1] and "diverged" in told[2]
    assert len(Diagnostics(1.001, 900.0, 0).told(SHORT, 7, "At width 3, seed 0")) == 1


def test_what_no_finite_posterior_is_is_refused_in_a_sentence(monkeypatch):
    def said(learner, network=SMALL, width=4, scaling: Any = None):
        with pytest.raises(EmptyCell) as caught:
            Member(network, width, scaling or ww.NTK(), learner).train(PLAIN)
        return str(caught.value)

    assert "leave it out at width 4, or use width=inf." in said(ww.Posterior(kernel="ntk"))
    assert "Inducing points" in said(ww.Posterior(inducing=Inducing(3)))
    assert "train width=inf with it" in said(ww.Posterior(tune=True))
    assert "is for infinite width" in said(ww.Posterior(likelihood="categorical"))
    assert "use Posterior(prior='network')" in said(ww.Posterior(prior="deep_gp"))
    assert "give one number above 0" in said(ww.Posterior(nu=0.0, noise=0.1), scaling=ww.MuP())
    pooled = Unflatten((2, 1)) >> MaxPool((2, 1)) >> Flatten() >> Dense() >> Relu() >> Readout()
    assert "Or give a noise" in said(ww.Posterior(), pooled)
    monkeypatch.setattr("widthwise.memory.free_memory", lambda: 1000)
    assert "fewer draws, or use a smaller width" in said(ww.Posterior(noise=0.1))
    family = Family(SMALL, ww.NTK(), ww.Posterior(kernel="ntk", noise=0.1), (4, math.inf), 1)
    monkeypatch.undo()
    runs = family.train(PLAIN, progress=False)
    assert [cell.width for cell in runs.open_cells] == [4] and runs.limit is not None
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(ImportError, match=r"pip install 'widthwise\[sampling\]'"):
        Member(SMALL, 4, ww.NTK(), ww.Posterior(noise=0.1)).train(PLAIN)


def test_a_mixture_that_is_not_reached_is_sampled_instead(monkeypatch):
    import widthwise.conditioning as module

    def unreached(*args, **kwargs):
        raise ValueError("Draws do not reach the posterior.")

    monkeypatch.setattr(module, "mixture_posterior", unreached)
    monkeypatch.setattr(module, "sampled_posterior", lambda *a, **k: (None, None, ("sampled",)))
    linear = Dense() >> Readout()
    found = condition(linear, 3, ww.NTK(), ww.Posterior(noise=0.1), pose(PLAIN, "mse"), seed=0)
    assert found.notes[0].startswith("No exact mixture: Draws do not reach the posterior.")
    assert found.notes[1] == "sampled"


def test_without_hidden_weights_the_posterior_is_a_gaussian_process():
    net, learner = Readout(bias_variance=0.3), ww.Posterior(noise=0.1)
    found, limit = (Member(net, width, ww.NTK(), learner).train(PLAIN) for width in (4, math.inf))
    assert "no hidden weights" in found.notes[0]
    one, two = (r.predict(X, covariance=True) for r in (found, limit))
    np.testing.assert_allclose(one.value, two.value, rtol=1e-8)
    assert one.covariance is not None and two.covariance is not None
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=1e-8)


def posed(scaling: Any, width: int, network, data: Data):
    outputs = data.y_train.shape[1]
    return FiniteNetwork(network, width, data.x_train.shape[1], outputs, scaling), pose(data, "mse")


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2])
def test_chains_of_linear_networks_are_the_exact_mixture(outputs, rng):
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(6, outputs))
    data = Data.of(x[:6], y, x[6:], np.zeros((3, outputs)), task="regression")
    net = Dense(weight_variance=1.0) >> Dense(weight_variance=1.0) >> Readout(weight_variance=1.0)
    given = posed(ww.NTK(), 4, net, data)
    exact, path, _ = mixture_posterior(*given, noise=NOISE, seed=0)
    found, chains, _ = sampled_posterior(
        *given, Sampling(draws=4000), noise=NOISE, copies=1.0, seed=0, advance=lambda share: None
    )
    assert found.diagnostics.rhat < 1.01 and found.diagnostics.effective > 2000
    predicted: list[Any] = [state.predict(x[6:], True) for state in (exact, found)]
    one, two = predicted
    error = one.std.max() / math.sqrt(found.diagnostics.effective)
    np.testing.assert_allclose(two.value, one.value, atol=5 * error)
    np.testing.assert_allclose(two.covariance, one.covariance, atol=0.1 * one.std.max() ** 2)
    for name, kernels in path.kernels.items():
        np.testing.assert_allclose(chains.kernels[name], kernels, atol=0.05 * np.abs(kernels).max())


@pytest.mark.slow
def test_copies_are_outputs_with_readouts_of_their_own():
    """Three copies, drawn as three outputs with one set of targets."""
    outputs, kernels, weights = by_weights(np.tanh, 3, X, Y, copies=3)
    net, problem = posed(ww.NTK(), 3, SMALL, PLAIN)
    state, path, notes = sampled_posterior(
        net, problem, SHORT, noise=NOISE, copies=3.0, seed=0, advance=lambda share: None
    )
    assert "counts 3 times" in notes[-1]
    effective = min(state.diagnostics.effective, 1 / np.sum(weights**2))
    mean = weights @ outputs
    spread = np.sqrt(weights @ (outputs - mean) ** 2)
    found: Any = state.predict(X, True)
    assert (np.abs(found.value[:, 0] - mean) < 5 * spread / math.sqrt(effective)).all()
    np.testing.assert_allclose(found.std, spread, rtol=0.1)
    mean = np.tensordot(weights, kernels[:, 1:, 1:], 1)
    np.testing.assert_allclose(path.kernels["1 Tanh()"][1], mean, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("nu", [1.0, 3.0])
def test_rich_members_of_linear_networks_approach_the_deep_kernel_machine(nu, rng):
    x, y = rng.normal(size=(6, 8)), 1.5 * rng.normal(size=(6, 1))
    data = Data.of(x[:5], y[:5], x, y, task="regression")
    net = Dense(weight_variance=1.0) >> Dense(weight_variance=1.0) >> Readout(weight_variance=1.0)
    learner = ww.Posterior(noise=0.1, nu=nu, sampling=Sampling(draws=1000))
    runs: Any = Family(net, ww.MuP(), learner, (8, 32, math.inf), 1).train(data, progress=False)
    assert runs.limit.limit == "DeepKernelMachine"
    ((name, (_, kernel)),) = runs.limit.trajectory.kernels.items()
    learned = [runs.at(width)[0].trajectory.kernels[name][1] for width in (8, 32)]
    gaps = [float(np.linalg.norm(own - kernel) / np.linalg.norm(kernel)) for own in learned]
    assert gaps[1] < 0.5 * gaps[0] and gaps[1] < 2 / 32, gaps
    (run,) = runs.at(32)
    one, two = (r.predict(x, covariance=True) for r in (run, runs.limit))
    np.testing.assert_allclose(one.value, two.value, atol=0.1 * np.abs(two.value).max())
    np.testing.assert_allclose(one.std, two.std, rtol=0.15)
