"""The rich linear limit: the authors' trajectory, and real networks of growing width."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from slowly import cases_of

from widthwise.finite import FiniteNetwork, train
from widthwise.learner import GradientDescent
from widthwise.limits.base import EmptyCell
from widthwise.limits.rich_linear import (
    LinearWeights,
    Moving,
    RichLinear,
    advance,
    constants,
    initial_weights,
)
from widthwise.network import Dense, Readout, Relu
from widthwise.problem import Diverged, Problem
from widthwise.scaling import ABC, NTK, MeanField, MuP, Richness
from widthwise.schedule import Cosine
from widthwise.solve import float64

ORACLE = Path(__file__).parents[1] / "oracle" / "rich" / "linear_sgd.npz"
NET = Dense(bias_multiplier=0.7) >> Readout(weight_variance=0.5, bias_multiplier=0.4)


def problem(loss="mse", rows=12, columns=5, tests=6):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows + tests, columns)) + 0.3
    if loss == "mse":
        y = np.stack([x[:, 0] + np.sin(x[:, 1]), x[:, 2] * x[:, 3], x[:, 1]], axis=1)
        return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, "regression")
    y = np.eye(3)[np.argmax(x[:, :3], axis=1)]
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, "classification")


def limit_of(net, scaling, learner, posed, order=3, logs=6):
    prepared = RichLinear(net, scaling, learner).prepare(posed, order=order, logs=logs)
    return prepared.train()


def finite_of(net, scaling, learner, posed, width, seed, order=3, logs=6):
    size = FiniteNetwork(net, width, posed.x_train.shape[1], posed.y_train.shape[1], scaling)
    with float64():
        return train(
            size, posed, learner, lr=learner.lr, seed=seed, order=order, logs=logs, dtype="float64"
        )[1]


def test_the_authors_trajectory():
    """Losses and final weights in float64; their loss is a mean over rows and ten outputs."""
    digits: Any = load_digits()
    oracle, x = np.load(ORACLE), digits.data / 16
    x, y = (x - x.mean()) / x.std(), np.eye(10)[digits.target] - 0.1
    # the constants that make both initial vectors and step sizes those of the authors
    net = Dense(weight_variance=64.0, bias_multiplier=0.0) >> Readout(
        weight_variance=0.25, bias_multiplier=0.0, lr_multiplier=4.0
    )
    found = constants(net, MuP(), 64, 10)
    assert found == ((1.0, 0.0, 0.5), (1.0, 0.0, 0.25, 0.0), (1.0, 1.0, 4.0, 4.0))
    first = initial_weights(found.start, 64, 10)
    moving = Moving(first, LinearWeights(*(np.zeros_like(w) for w in first)))
    losses, learner = [], GradientDescent(lr=0.05 / 5)
    for rows in oracle["idx"]:
        out = moving.weights.outputs(x[rows])
        losses.append(np.mean((out - y[rows]) ** 2))
        gradient = moving.weights.gradient(x[rows], (out - y[rows]) / len(rows))
        moving = advance(moving, gradient, first, found, learner, 1.0, len(x))
    np.testing.assert_allclose(losses, oracle["loss"], rtol=1e-9)
    np.testing.assert_allclose(moving.weights.hidden, oracle["U_final"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moving.weights.readout, oracle["V_final"], rtol=1e-9, atol=1e-12)


ALWAYS = (
    "mini-batches, momentum, decay", "ridge", "all clipped together", "cross-entropy",
    "random bias, wide layer, slow readout",
)  # fmt: skip
CASES = {
    "MuP": (NET, MuP(), GradientDescent(lr=0.3, steps=30)),
    "gamma0": (NET, MuP(gamma0=2.0), GradientDescent(lr=0.1, steps=30)),
    "Richness": (NET, Richness(0.0, 0.5), GradientDescent(lr=0.3, steps=30)),
    "mini-batches, momentum, decay": (
        NET, MeanField(),
        GradientDescent(lr=0.05, steps=40, batch_size=5, momentum=0.7, weight_decay=0.2),
    ),
    "ridge": (NET, MuP(), GradientDescent(lr=0.1, steps=30, momentum=0.5, ridge=6.0)),
    "norms of tensors clipped, step size falling": (
        Dense(lr_multiplier=0.5, bias_multiplier=0.7) >> Readout(lr_multiplier=2.0),
        MuP(gamma0=1.5), GradientDescent(lr=0.5, steps=40, clip=0.1, schedule=Cosine()),
    ),
    "all clipped together": (
        NET, MuP(), GradientDescent(lr=0.5, steps=40, clip=0.2, clip_by="global", momentum=0.5)
    ),
    "cross-entropy": (NET, MuP(), GradientDescent(lr=0.5, steps=30, loss="cross_entropy")),
    "random bias, wide layer, slow readout": (
        Dense(times=2, bias_variance=0.5, bias_multiplier=0.8)
        >> Readout(weight_variance=0.5, lr_multiplier=0.3),
        MuP(), GradientDescent(lr=0.3, steps=30),
    ),
    "ABC": (
        NET, ABC(a=(-0.5, 0, 0.5), b=(0.5, 0.5, 0.5), c=(0, 0, 0)),
        GradientDescent(lr=0.05, steps=30),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", cases_of(CASES, ALWAYS))
def test_wide_networks_come_close(case):
    """Outputs, losses, kernels of four networks of width 4,096 in the mean, at all logged times."""
    net, scaling, learner = CASES[case]
    posed = problem(learner.loss)
    limit = limit_of(net, scaling, learner, posed).trajectory
    runs = [finite_of(net, scaling, learner, posed, 4096, seed) for seed in range(4)]
    moved = np.abs(limit.predictions[-1]).max()
    assert moved > 0.3  # else nothing is tested
    found = np.mean([run.predictions for run in runs], axis=0)
    np.testing.assert_allclose(found, limit.predictions, atol=0.03 * moved)
    lost = np.mean([run.train_loss for run in runs], axis=0)
    np.testing.assert_allclose(lost, limit.train_loss, rtol=0.03)
    (name,) = limit.kernels
    kernel = np.mean([run.kernels[name] for run in runs], axis=0)
    scale = np.abs(limit.kernels[name][-1]).max()
    np.testing.assert_allclose(kernel, limit.kernels[name], atol=0.03 * scale)


def test_gap_falls_like_the_root_of_the_width():
    net, scaling, learner = CASES["MuP"]
    posed = problem()
    limit = limit_of(net, scaling, learner, posed).trajectory.predictions[-1]
    widths, gaps = (64, 512, 4096), []
    for width in widths:
        found = [finite_of(net, scaling, learner, posed, width, seed) for seed in range(5)]
        gaps.append(np.sqrt(np.mean([(run.predictions[-1] - limit) ** 2 for run in found])))
    slope = np.polyfit(np.log(widths), np.log(gaps), 1)[0]
    assert -0.65 < slope < -0.35


def test_fewer_rows_than_inputs_are_brought_into_their_span():
    """The same run, in all coordinates of the inputs."""
    learner = GradientDescent(lr=0.2, steps=20, weight_decay=0.1, ridge=2.0)
    posed = problem(rows=4, columns=9)
    small = limit_of(NET, MuP(), learner, posed)
    prepared: Any = RichLinear(NET, MuP(), learner).prepare(posed, order=3, logs=6)
    whole = dataclasses.replace(prepared, basis=np.eye(9)).train()
    assert small.state.basis.shape == (9, 4)  # type: ignore[attr-defined]
    for one, other in zip(small.trajectory[1:4], whole.trajectory[1:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    (name,) = small.trajectory.kernels
    np.testing.assert_allclose(
        small.trajectory.kernels[name], whole.trajectory.kernels[name], rtol=1e-9
    )


@pytest.mark.parametrize("scaling", [MeanField(), Richness(0.0)], ids=repr)
def test_equivalent_scalings_have_one_limit(scaling):
    learner = GradientDescent(lr=0.2, steps=10, momentum=0.5)
    posed = problem()
    expected = limit_of(NET, MuP(), learner, posed)
    found = limit_of(NET, scaling, learner, posed)
    np.testing.assert_allclose(
        found.trajectory.predictions, expected.trajectory.predictions, rtol=1e-12
    )
    state = found.state.predict(posed.x_test, True)
    np.testing.assert_allclose(state.value, found.trajectory.predictions[-1], rtol=1e-12)
    assert state.covariance is not None and not state.covariance.any()


def test_refusals():
    learner = GradientDescent(lr=0.1)
    for net, scaling, word in (
        (Dense() >> Relu() >> Readout(), MuP(), "linear layer"),
        (Dense() >> Readout(bias_variance=0.1), MuP(), "bias_variance"),
        (Dense() >> Readout(), NTK(), "TangentKernel"),
    ):
        limit = RichLinear(net, scaling, learner)
        assert word in str(limit.refusal())
        with pytest.raises(EmptyCell, match=word):
            limit.check(problem())
    projected = RichLinear(NET, MuP(), GradientDescent(lr=0.1, projection=4))
    assert "projected gradients" in str(projected.refusal())
    with pytest.raises(Diverged, match="lower lr"):
        limit_of(NET, MuP(), GradientDescent(lr=50.0, steps=40), problem())
