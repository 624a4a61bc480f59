"""Linear convolutional members under Posterior: exact draws, against drawn weights and chains."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slowly import cases

import widthwise as ww
from widthwise.conditioning import condition
from widthwise.data import Data
from widthwise.family import Member
from widthwise.finite.deep_linear.filters import filters_of
from widthwise.finite.instance import FiniteNetwork, Numbers
from widthwise.finite.posterior import sampled_posterior
from widthwise.finite.posterior.convolved import grids_of
from widthwise.network import (
    AveragePool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Crop,
    Dense,
    Flatten,
    GlobalAveragePool,
    GlobalSumPool,
    Identity,
    Readout,
    Relu,
    Unflatten,
)
from widthwise.network.layer import AbstractLayer
from widthwise.problem import pose
from widthwise.solve import float64

PLAIN = Unflatten((5,)) >> Conv((3,)) >> Flatten() >> Readout()
DEEP = Unflatten((4,)) >> Conv((3,), padding="CIRCULAR") >> Conv((3,), times=2) >> Flatten()
NETS = [
    PLAIN,
    DEEP >> Readout(),
    Unflatten((2, 3), channels=2, channels_first=True)
    >> Conv((2, 2), padding="VALID")
    >> GlobalAveragePool()
    >> Dense()
    >> Readout(),
    Unflatten((6,))
    >> AveragePool((2,))
    >> Conv((2,), strides=(2,), padding="SAME")
    >> Identity()
    >> ConvTranspose((3,), strides=(2,), padding="SAME")
    >> Crop(((1, 4, 1),))
    >> Flatten()
    >> Readout(),
    Unflatten((4, 4))
    >> Dense(weight_variance=0.2)
    >> AveragePool()
    >> Conv(weight_variance=1.0)
    >> GlobalSumPool()
    >> Readout(),
]


def columns(net: AbstractLayer) -> int:
    return net.sequence[0].columns  # type: ignore[attr-defined]


@pytest.mark.parametrize("scaling", cases([ww.NTK()], [ww.Standard(), ww.MuP()]))
@pytest.mark.parametrize("net", cases(NETS[2:4], [*NETS[:2], NETS[4]]))
def test_filters_are_the_network(net, scaling, rng):
    """The standard deviations too: those of numbers that are drawn."""
    found = FiniteNetwork(net, 6, columns(net), 1, scaling)
    x = rng.normal(size=(3, columns(net)))
    with float64():
        drawn = found.draw(jax.random.key(0), "float64")
        wanted = np.asarray(found.apply(drawn, jnp.asarray(x)))
    filters = filters_of(found)
    assert filters is not None
    signal = grids_of(found, x)
    weights = [w for w in jax.tree.leaves(drawn) if w.ndim > 1]
    numbers = jax.tree.leaves(found.numbers, is_leaf=lambda node: isinstance(node, Numbers))
    numbers = [one for one in numbers if one.shape[1:]]
    for own, weight, one in zip(filters, weights, numbers, strict=True):
        weight = np.asarray(weight).reshape(len(own.taps), -1, own.channels) / one.std
        signal = np.einsum("mij,njc,mck->nik", own.taps, signal, weight)
        signal *= math.sqrt(own.variance)
    np.testing.assert_allclose(signal[:, 0], wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "net",
    [
        Unflatten((4,)) >> Conv((3,)) >> Relu() >> Flatten() >> Readout(),
        Unflatten((4,)) >> Conv((3,), bias_variance=0.1) >> Flatten() >> Readout(),
        Unflatten((4,)) >> ConvLocal((3,)) >> Flatten() >> Readout(),
        Unflatten((4,)) >> Flatten() >> Readout(),
        Unflatten((40, 40)) >> Conv((3, 3)) >> Flatten() >> Readout(),
    ],
    ids=str,
)
def test_other_networks_are_none(net):
    assert filters_of(FiniteNetwork(net, 6, columns(net), 1, ww.NTK())) is None


def data(net: AbstractLayer, rows: int, rng) -> Data:
    x = rng.normal(size=(rows + 2, columns(net)))
    y = x @ rng.normal(size=columns(net)) / math.sqrt(columns(net))
    return Data.of(x[:rows], 2 * y[:rows, None], x[rows:], y[rows:, None], task="regression")


@pytest.mark.parametrize(
    "net, width", cases([(DEEP >> Readout(), 3)], itertools.product(NETS, (2, 12)))
)
def test_members_are_those_of_drawn_weights(net, width, rng):
    """Mean, covariance and the features' kernels; weights are drawn from the prior."""
    found, count = data(net, 4, rng), 50_000
    noise = float(np.mean(found.y_train**2)) / 2
    learner = ww.Posterior(noise=noise, sampling=ww.Sampling(draws=2000))
    run: Any = Member(net, width, ww.NTK(), learner).train(found)
    assert "are worth" in run.notes[-1]
    predicted = run.predict(found.x_test, covariance=True)

    instance = FiniteNetwork(net, width, columns(net), 1, ww.NTK())
    x = np.concatenate([found.x_train, found.x_test])

    def one(key):
        rows = jnp.asarray(x)
        drawn = instance.draw(key, "float64")
        features = instance.features(drawn, rows[4:])
        kernels = {name: h @ h.T / h.shape[1] for name, h in features.items()}
        return instance.apply(drawn, rows)[:, 0], kernels

    with float64():
        keys = jax.random.split(jax.random.key(3), count)
        outputs, kernels = jax.lax.map(one, keys, batch_size=1000)
    outputs = np.asarray(outputs)
    logs = -np.sum((outputs[:, :4] - found.y_train[:, 0]) ** 2, axis=1) / (2 * noise)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    assert 1 / np.sum(weights**2) > 500

    evidence = np.mean(np.exp(logs)) / (2 * math.pi * noise) ** 2
    error = np.std(np.exp(logs)) / np.mean(np.exp(logs)) / math.sqrt(count)
    error = math.hypot(error, 1 / math.sqrt(run.state.diagnostics.effective))
    assert abs(run.state.log_evidence - math.log(evidence)) < 5 * error

    def check(value, each):
        mean = np.tensordot(weights, each, 1)
        error = np.sqrt(np.tensordot(weights**2, (each - mean) ** 2, 1))
        spread = np.sqrt(np.tensordot(weights, (each - mean) ** 2, 1))
        error = np.hypot(error, spread / math.sqrt(run.state.diagnostics.effective))
        assert (np.abs(value - mean) < 5 * error).all(), np.abs(value - mean) / error

    new = outputs[:, 4:]
    check(predicted.value[:, 0], new)
    check(
        predicted.covariance + predicted.value @ predicted.value.T, new[:, :, None] * new[:, None]
    )
    for name, each in kernels.items():
        check(run.trajectory.kernels[name][1], np.asarray(each))


def test_seeds_decide_and_runs_are_kept(tmp_path, rng):
    found = data(PLAIN, 6, rng)
    learner = ww.Posterior(noise=0.3, sampling=ww.Sampling(draws=100))
    one, two, other = (
        Member(PLAIN, 8, ww.NTK(), learner).train(found, seed=seed) for seed in (0, 0, 1)
    )
    first, again, others = (run.predict(found.x_test).value for run in (one, two, other))
    np.testing.assert_array_equal(first, again)
    assert 0 < np.abs(first - others).max() < 0.3
    one.save(tmp_path / "run")
    kept: Any = ww.Run.load(tmp_path / "run")
    np.testing.assert_array_equal(kept.predict(found.x_test).value, first)
    assert kept.state.log_evidence == one.state.log_evidence  # type: ignore[attr-defined]


def test_draws_that_do_not_reach_are_sampled(monkeypatch, rng):
    import widthwise.conditioning as module

    monkeypatch.setattr(module, "sampled_posterior", lambda *a, **k: (None, None, ("sampled",)))
    net = Unflatten((70,)) >> Conv((3,)) >> Flatten() >> Readout()
    problem = pose(data(net, 4, rng), "mse")
    found = condition(net, 3, ww.NTK(), ww.Posterior(noise=0.1), problem, seed=0)
    assert found.notes[0].startswith("No exact mixture: A hidden layer has 70 positions, and 64")
    assert found.notes[1] == "sampled"


@pytest.mark.slow
def test_chains_find_the_same(rng):
    """5 standard errors of both."""
    net, noise = DEEP >> Readout(), 0.1
    found, sampling = data(net, 20, rng), ww.Sampling(draws=2000)
    own: Any = Member(net, 6, ww.NTK(), ww.Posterior(noise=noise, sampling=sampling)).train(found)
    instance = FiniteNetwork(net, 6, columns(net), 1, ww.NTK())
    other, trajectory, _ = sampled_posterior(
        instance,
        pose(found, "mse"),
        sampling,
        noise=noise,
        copies=1.0,
        seed=0,
        advance=lambda share: None,
    )
    assert other.diagnostics.rhat < 1.01
    predicted: list[Any] = [r.predict(found.x_test, covariance=True) for r in (own, other)]
    one, two = predicted
    error = np.sqrt(np.diagonal(two.covariance) / other.diagnostics.effective)
    error *= math.sqrt(1 + other.diagnostics.effective / own.state.diagnostics.effective)
    assert (np.abs(one.value - two.value)[:, 0] < 5 * error).all()
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=0.15, atol=0.02)
    for name, (_, after) in own.trajectory.kernels.items():
        np.testing.assert_allclose(after, trajectory.kernels[name][1], rtol=0.15, atol=0.1)


@pytest.mark.slow
def test_the_gap_to_the_gaussian_process_shrinks_like_one_over_the_width(rng):
    found, learner = data(PLAIN, 12, rng), ww.Posterior(noise=0.1)
    values = [
        Member(PLAIN, width, ww.NTK(), learner).train(found).predict(found.x_test).value
        for width in (128, 512, math.inf)
    ]
    far, near = (np.abs(value - values[-1]).max() for value in values[:2])
    assert 3 < far / near < 5, (far, near)
