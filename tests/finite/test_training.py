"""Finite networks do what their scaling and learner say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.finite import FiniteNetwork, empirical_kernel, train
from widthwise.finite.train import initial_key
from widthwise.kernels import kernel_matrix
from widthwise.learner import Adam, GradientDescent
from widthwise.network import Dense, Erf, Readout, Relu, Tanh
from widthwise.problem import Diverged, Problem
from widthwise.scaling import ABC, NTK, MeanField, MuP, Richness, Standard
from widthwise.solve import float64

NET = Dense() >> Erf() >> Dense(times=2, bias_variance=0.1) >> Tanh() >> Readout()


def problem(rows=12, columns=4, outputs=2, seed=0) -> Problem:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows + 6, columns)), rng.normal(size=(rows + 6, outputs))
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, "regression")


def outputs_after(scaling, learner, *, steps, lr, width=16, dtype="float64"):
    learner = dataclasses.replace(learner, steps=steps)
    net = FiniteNetwork(NET, width, 4, 2, scaling, learner.entrywise)
    with float64():
        return train(net, problem(), learner, lr=lr, seed=0, dtype=dtype)[1].predictions[-1]


@pytest.mark.parametrize(
    "learner",
    [
        GradientDescent(momentum=0.5, weight_decay=0.1, ridge=0.3, batch_size=5),
        pytest.param(Adam(weight_decay=0.1, eps=1e-3), marks=pytest.mark.slow),
    ],
)
def test_equivalent_scalings_train_alike_at_every_step(learner):
    """MuP, mean field and Richness(0) are one network in three coordinates."""
    found = [
        outputs_after(scaling, learner, steps=7, lr=0.05)
        for scaling in (MuP(), MeanField(), Richness(0.0))
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-9, atol=1e-12)


def test_momentum_and_decay_as_written_out():
    """Three steps by hand, in NTK coordinates where every rate is one."""
    learner = GradientDescent(momentum=0.9, weight_decay=0.2, ridge=0.5)
    data = problem()
    with float64():
        net = FiniteNetwork(NET, 8, 4, 2, NTK())
        w0 = w = net.draw(initial_key(0), "float64")
        x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)

        def loss(w):
            return 0.5 * jnp.mean(jnp.sum((net.apply(w, x) - y) ** 2, axis=1))

        v = jax.tree.map(jnp.zeros_like, w)
        for _ in range(3):
            g = jax.grad(loss)(w)
            g = jax.tree.map(lambda g, w, w0: g + 0.5 / 12 * (w - w0), g, w, w0)
            v = jax.tree.map(lambda v, g: 0.9 * v + g, v, g)
            w = jax.tree.map(lambda w, v: w - 0.1 * (v + 0.2 * w), w, v)
        expected = net.apply(w, jnp.asarray(data.x_test))
    found = outputs_after(NTK(), learner, steps=3, lr=0.1, width=8)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [NTK(), Standard()], ids=repr)
def test_empirical_tangent_kernel_approaches_the_limit(scaling):
    """With the scaling's step sizes as weights; the gap shrinks near n^-1/2."""
    net = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
    x = np.random.default_rng(1).normal(size=(5, 3))
    limit = kernel_matrix(net, x, scaling=scaling).ntk
    gaps = []
    for width in (64, 1024):
        instance = FiniteNetwork(net, width, 3, 1, scaling)
        rates = instance.map(lambda one: one.rate)
        found = [
            empirical_kernel(
                instance.apply, instance.draw(jax.random.key(seed)), jnp.asarray(x, "float32"),
                rates=rates,
            )
            for seed in range(6)
        ]  # fmt: skip
        gaps.append(np.sqrt(np.mean((np.array(found) - limit) ** 2)))
    exponent = np.log(gaps[1] / gaps[0]) / np.log(16)
    assert -0.75 < exponent < -0.3, (gaps, exponent)


def feature_and_output_change(scaling, learner, widths, lr):
    """Exponents in the width of the rms change of last-layer features and of outputs."""
    moves, changes = [], []
    data = problem(rows=8, columns=3, outputs=1)
    net = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
    x = jnp.asarray(data.x_test, "float32")
    for width in widths:
        instance = FiniteNetwork(net, width, 3, 1, scaling, learner.entrywise)
        moved, changed = [], []
        for seed in range(3):
            state, log = train(instance, data, learner, lr=lr, seed=seed)
            before = list(instance.features(instance.draw(initial_key(seed)), x).values())[-1]
            after = list(instance.features(state.parameters, x).values())[-1]
            moved.append(np.sqrt(np.mean((after - before) ** 2)))
            changed.append(np.abs(log.predictions[-1] - log.predictions[0]).mean())
        moves.append(np.mean(moved))
        changes.append(np.mean(changed))
    return np.polyfit(np.log(widths), np.log(np.stack([moves, changes], axis=1)), 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "learner, lr",
    [
        (GradientDescent(steps=3), 0.3),
        (Adam(steps=3), 0.05),
    ],
)
def test_features_move_as_classified(learner, lr):
    widths = (64, 1024)
    for scaling, expected in ((NTK(), -0.5), (MuP(), 0.0), (Richness(0.25), -0.25)):
        moved, changed = feature_and_output_change(scaling, learner, widths, lr)
        assert abs(moved - expected) < 0.2, (scaling, moved)
        assert abs(changed) < 0.2, (scaling, changed)


@pytest.mark.slow
def test_standard_adam_at_one_over_width_blows_up():
    """Why Standard() steps like n^-3/2 under Adam: at n^-1 outputs grow with the width."""
    at_one = ABC(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(1, 1, 1))
    _, changed = feature_and_output_change(at_one, Adam(steps=1), (128, 512, 2048), 0.05)
    assert changed > 0.3
    _, stable = feature_and_output_change(Standard(), Adam(steps=1), (128, 512, 2048), 0.05)
    assert abs(stable) < 0.25


def test_divergence_is_one_sentence():
    net = FiniteNetwork(NET, 16, 4, 2, NTK())
    with pytest.raises(Diverged, match="lower lr"):
        train(net, problem(), GradientDescent(steps=300), lr=1e4, seed=0)


def test_same_order_same_seed_same_run():
    net = FiniteNetwork(NET, 16, 4, 2, MuP())
    learner = GradientDescent(steps=9, batch_size=4)
    one, two = (train(net, problem(), learner, lr=0.1, seed=3)[1] for _ in range(2))
    np.testing.assert_array_equal(one.predictions, two.predictions)
    other = train(net, problem(), learner, lr=0.1, seed=3, order=1)[1]
    assert not np.array_equal(one.predictions[-1], other.predictions[-1])
