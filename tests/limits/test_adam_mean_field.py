"""The rich limit under Adam: a network of its particles, wide networks, and the lazy limit."""

import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from slowly import cases_of

from widthwise.finite import FiniteNetwork, train
from widthwise.finite.optimiser import optimiser
from widthwise.finite.train import sample_loss
from widthwise.learner import Adam, SignDescent
from widthwise.limits.adam import AdamLimit
from widthwise.limits.adam_mean_field import AdamMeanField
from widthwise.limits.adam_mean_field.constants import layer_of
from widthwise.limits.adam_mean_field.particles import (
    Rule,
    advance,
    drawn,
    memory_at_rest,
    outputs,
    principal_axes,
)
from widthwise.limits.base import EmptyCell, Work
from widthwise.limits.table import lookup
from widthwise.network import Dense, Elementwise, Erf, Gelu, Readout, Relu, Tanh
from widthwise.network.dense import Affine
from widthwise.problem import Diverged, Problem, batches
from widthwise.scaling import ABC, NTK, MeanField, MuP, Richness
from widthwise.schedule import Linear
from widthwise.solve import float64

NET = Dense() >> Tanh() >> Readout()
LEARNER = Adam(lr=0.05, steps=40, eps=1e-3)
PLAIN: Any = dict(order=0, logs=6)


def problem(rows=16, columns=5, outputs=1, test=14, seed=0) -> Problem:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows + test, columns))
    y = np.sin(1.5 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    if outputs > 1:
        y = np.eye(outputs)[np.digitize(y[:, 0], np.linspace(-1, 1, outputs - 1))]
    kind = "regression" if outputs == 1 else "classification"
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, kind)


def solve(network=NET, scaling: Any = None, learner=LEARNER, data=None, **settings):
    limit = AdamMeanField(network, scaling or MuP(), learner, **settings)
    assert limit.refusal() is None
    return limit.prepare(data or problem(), **PLAIN).train()


CASES = {
    "plain": (NET, MuP(), LEARNER, 1),
    "linear": (Dense() >> Readout(), MuP(), LEARNER, 1),
    "rich dial": (Dense() >> Gelu() >> Readout(), MuP(2.5), LEARNER, 1),
    "mean field": (NET, MeanField(), LEARNER, 1),
    "richness": (NET, Richness(0.0, 0.3), LEARNER, 1),
    "abcd": (NET, ABC((0, 0, 1), (0, 0.5, 0), (0, 1, 0), (1, 1, 1)), LEARNER, 1),
    "layers": (
        Dense(weight_variance=1.7, bias_variance=0.5, lr_multiplier=0.4)
        >> Relu()
        >> Readout(weight_variance=0.6, bias_multiplier=0.7, lr_multiplier=2.0),
        MuP(),
        LEARNER,
        1,
    ),
    "at rest": (
        Dense(lr_multiplier=0.0, bias_variance=0.3) >> Erf() >> Readout(),
        MuP(),
        Adam(lr=0.05, steps=40, eps=1e-3, weight_decay=0.2),
        1,
    ),
    "learner": (
        Dense(bias_variance=0.2) >> Tanh() >> Readout(),
        MuP(),
        Adam(
            lr=0.05, steps=40, eps=0.01, b1=0.7, b2=0.95, batch_size=5, weight_decay=0.3,
            schedule=Linear(0.2),
        ),
        3,
    ),
    "classes": (NET, MuP(), Adam(lr=0.05, steps=40, eps=1e-3, loss="cross_entropy"), 4),
    "signs": (NET, MuP(), SignDescent(lr=0.02, steps=40, eps=1e-2, weight_decay=0.2), 1),
    "not corrected": (
        NET, MuP(), Adam(lr=0.02, steps=40, eps=1e-3, b2=0.9, bias_correction=False), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", cases_of(CASES, ("plain", "at rest", "learner", "signs")))
def test_particles_are_a_finite_network_with_these_weights(case):
    """All conventions at once: the finite optimiser trains a network of the drawn particles."""
    network, scaling, learner, k = CASES[case]
    data, size = problem(outputs=k), 32
    layer = layer_of(network, scaling, 5)
    particles = drawn(layer, principal_axes(data.x_train), k, size, 0)
    net = FiniteNetwork(network, size, 5, k, scaling, True)
    hidden, last = net.numbers[0], net.numbers[-1]
    own = [one.multiplier or 1.0 for one in (hidden.weight, hidden.bias, last.weight, last.bias)]
    with float64():
        u, b, v, c = (jnp.asarray(w) / m for w, m in zip(particles, own, strict=True))
        between = [net.numbers[i] for i in range(1, len(net.numbers) - 1)]
        parameters: Any = (Affine(u.T, b), *between, Affine(v / size, c))
        rows = batches(len(data.x_train), learner.steps, learner.batch_size, 0)
        factors = learner.schedule.factors(learner.steps)

        def objective(w, x, y):
            return jnp.mean(
                jax.vmap(lambda o, t: sample_loss(o, t, learner.loss))(net.apply(w, x), y)
            )

        state: Any = None
        slope = jax.jit(jax.grad(objective))
        for step in range(learner.steps):
            chosen = slice(None) if rows is None else rows[step]
            taken = optimiser(net, learner, learner.lr, len(data.x_train), float(factors[step]))
            state = taken.init(parameters) if state is None else state
            x, y = jnp.asarray(data.x_train[chosen]), jnp.asarray(data.y_train[chosen])
            updates, state = taken.update(slope(parameters, x, y), state, parameters)
            parameters = optax.apply_updates(parameters, updates)
        wanted = np.asarray(net.apply(parameters, jnp.asarray(data.x_test)))
    rule = Rule(layer, learner)
    moving = particles, memory_at_rest(rule, particles)
    found, _ = advance(
        rule, learner.lr, (0, learner.steps), moving, (data.x_train, data.y_train), rows, factors
    )
    assert np.abs(outputs(layer, particles, data.x_test)).max() < 1e-14, "f starts at zero"
    np.testing.assert_allclose(outputs(layer, found, data.x_test), wanted, rtol=1e-8, atol=1e-8)
    assert np.abs(wanted).max() > 0.1, "and moves"


def distances(network, learner, data, limit, widths, seeds):
    """Rms over seeds and entries of the distance of finite networks from the limit."""
    found = []
    for width in widths:
        net = FiniteNetwork(network, int(width), data.x_train.shape[1], 1, MuP(), True)
        runs = [train(net, data, learner, lr=learner.lr, seed=seed)[1] for seed in range(seeds)]
        gaps = [run.predictions[-1] - limit for run in runs]
        found.append(float(np.sqrt(np.mean(np.square(gaps)))))
    return np.array(found)


@pytest.mark.slow
def test_finite_networks_approach_it():
    data, widths = problem(), np.array([64, 256, 1024])
    limit = solve(data=data).trajectory.predictions[-1]
    found = distances(NET, LEARNER, data, limit, widths, 8)
    assert -0.65 < np.polyfit(np.log(widths), np.log(found), 1)[0] < -0.35


@pytest.mark.slow
@pytest.mark.parametrize("phi", [Tanh(), Relu()], ids=repr)
def test_networks_of_width_4096_are_near_it_and_far_from_the_lazy_limit(phi):
    network, data = Dense() >> phi >> Readout(), problem()
    learner, widths = Adam(lr=0.1, steps=60, eps=1e-2), np.array([64, 256, 1024, 4096])
    limit = solve(network, None, learner, data, samples=131072).trajectory.predictions[-1]
    found = distances(network, learner, data, limit, widths, 16)
    assert -0.65 < np.polyfit(np.log(widths), np.log(found), 1)[0] < -0.35
    lazy = AdamLimit(network, NTK(), learner).prepare(data, **PLAIN).train().trajectory
    assert np.sqrt(np.mean((lazy.predictions[-1] - limit) ** 2)) > 5 * found[-1]


@pytest.mark.slow
def test_at_a_tiny_gamma0_it_is_the_lazy_limit():
    """Gradients, which gamma0 divides, meet an eps that it divides too: steps of the function are
    those of any gamma0, and features stay. Without the readout's bias, which it does not divide."""
    network, data, small = Dense() >> Tanh() >> Readout(bias_multiplier=0.0), problem(), 1e-3
    settings: Any = dict(lr=0.05, steps=20)
    lazy = AdamLimit(network, NTK(), Adam(eps=1e-2, **settings)).prepare(data, **PLAIN).train()
    found = solve(network, MuP(small), Adam(eps=1e-2 / small, **settings), data)
    expected = lazy.trajectory.predictions[-1]
    gap = found.trajectory.predictions[-1] - expected
    assert np.sqrt(np.mean(gap**2)) < 0.02 * np.sqrt(np.mean(expected**2))
    (kernel,) = found.trajectory.kernels.values()
    assert np.abs(kernel[-1] - kernel[0]).max() < 0.01 * np.abs(kernel[0]).max()


def test_its_error_is_as_told():
    data = problem()
    few, many = (solve(data=data, samples=s) for s in (2048, 65536))
    told = float(re.search(r"standard error is ([\d.e-]+)", few.notes[0])[1])  # type: ignore[index]
    gaps = few.trajectory.predictions - many.trajectory.predictions
    assert 0.2 * told < np.sqrt(np.mean(gaps**2, axis=(1, 2))).max() < 4 * told
    again = solve(data=data, samples=2048)
    np.testing.assert_array_equal(again.trajectory.predictions, few.trajectory.predictions)


def test_equal_scalings_have_equal_limits():
    one = solve(samples=1024).trajectory.predictions
    for scaling in (MeanField(), Richness(0.0)):
        two = solve(scaling=scaling, samples=1024).trajectory.predictions
        np.testing.assert_allclose(one, two, atol=1e-9)
    assert isinstance(lookup(NET, Richness(0.0), LEARNER), AdamMeanField)


def test_what_it_leaves_predicts_and_can_be_pickled():
    data = problem()
    found = solve(Dense() >> Elementwise(fn=jnp.sin) >> Readout(), data=data, samples=1024)
    state = pickle.loads(pickle.dumps(found.state))
    value, covariance, _ = state.predict(data.x_test, True)
    np.testing.assert_allclose(value, found.trajectory.predictions[-1], atol=1e-12)
    assert not covariance.any()
    np.testing.assert_allclose(state.predict(data.x_test[:1], False).value, value[:1], atol=1e-12)
    with pytest.raises(ValueError, match="x has 4 columns"):
        state.predict(data.x_test[:, :4], False)


def test_an_interrupted_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("widthwise.limits.adam_mean_field.limit.SECONDS", 0.0)
    prepared = AdamMeanField(NET, MuP(), LEARNER, 1024).prepare(problem(), **PLAIN)
    whole, path, shares = prepared.train(), tmp_path / "one", []

    def interrupt(share):
        shares.append(share)
        if len(shares) == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared.train(work=Work(path, interrupt))
    shares.clear()
    found = prepared.train(work=Work(path, shares.append))
    assert len(shares) < 40 and sum(shares) == pytest.approx(1)
    np.testing.assert_array_equal(found.trajectory.predictions, whole.trajectory.predictions)
    other = AdamMeanField(NET, MuP(2.0), LEARNER, 1024).prepare(problem(), **PLAIN)
    assert not np.allclose(other.train(work=Work(path)).trajectory.train_loss, found[1].train_loss)


@pytest.mark.parametrize(
    "network, scaling, sentence",
    [
        (Dense() >> Relu() >> Dense() >> Relu() >> Readout(), MuP(), "one hidden layer.*2.*Extrap"),
        (Dense(times=2) >> Relu() >> Readout(), MuP(), "wider than the others"),
        (Dense() >> Relu() >> Readout(bias_variance=1.0), MuP(), "bias_variance=0"),
        (NET, ABC((0, 0, 1), (0, 0.5, 0), (0, 1, 0)), "order of its eps"),
    ],
)
def test_what_it_refuses(network, scaling, sentence):
    with pytest.raises(EmptyCell, match=sentence):
        lookup(network, scaling, LEARNER)


def test_settings_and_problems_that_it_refuses():
    with pytest.raises(ValueError, match="give 2048"):
        AdamMeanField(NET, MuP(), LEARNER, 3000)
    rows = np.zeros((2, 30_000))
    wide = Problem(rows, np.zeros((2, 1)), rows, np.zeros((2, 1)), 0.0, "regression")
    with pytest.raises(EmptyCell, match="fewer columns"):
        AdamMeanField(NET, MuP(), LEARNER).check(wide)
    rows = np.zeros((10**7, 2))
    long = Problem(rows, rows, rows, rows, 0.0, "regression")
    with pytest.raises(MemoryError, match="32,768 particles need"):
        AdamMeanField(NET, MuP(), LEARNER).check(long)
    with pytest.raises(Diverged, match="lower lr"):
        solve(Dense() >> Readout(), learner=Adam(lr=1e4, steps=20), samples=256)
