"""Mean field at full size: networks of width 4,096, and the rate at which networks approach it."""

from typing import Any

import numpy as np
import pytest

from widthwise.finite import FiniteNetwork, train
from widthwise.learner import GradientDescent
from widthwise.limits.mean_field import DynamicalMeanField
from widthwise.limits.tangent import TangentKernel
from widthwise.network import Dense, Readout, Relu, Tanh
from widthwise.problem import Problem
from widthwise.scaling import NTK, MuP

pytestmark = pytest.mark.slow
UNIT: Any = dict(weight_variance=1.0, bias_multiplier=0.0)
RELU: Any = dict(weight_variance=2.0, bias_multiplier=0.0)
SHALLOW = Dense(**UNIT) >> Tanh() >> Readout(**UNIT)
CASES = {
    "1 hidden tanh": (SHALLOW, 6, 120, 0.5),
    "1 hidden relu": (Dense(**RELU) >> Relu() >> Readout(**UNIT), 6, 120, 0.5),
    "2 hidden tanh": (
        Dense(**UNIT) >> Tanh() >> Dense(**UNIT) >> Tanh() >> Readout(**UNIT), 4, 40, 0.6,
    ),
}  # fmt: skip


def problem(rows: int, columns: int = 8, test: int = 2) -> Problem:
    """Gaussian rows with labels of +-1; the probes are test rows, then the training rows."""
    rng = np.random.default_rng(1)
    x, y = (
        rng.standard_normal((rows + test, columns)),
        np.sign(rng.standard_normal((rows + test, 1))),
    )
    order = np.roll(np.arange(rows + test), test)
    return Problem(x[:rows], y[:rows], x[order], y[order], 0.0, "regression")


def networks(network, data, learner, width, seeds, start=0) -> np.ndarray:
    """Predictions of each network at all logged steps."""
    net = FiniteNetwork(network, width, data.x_train.shape[1], 1, MuP())
    return np.stack(
        [
            train(net, data, learner, lr=learner.lr, seed=seed)[1].predictions
            for seed in range(start, start + seeds)
        ]
    )


@pytest.mark.parametrize("name", CASES)
def test_networks_of_width_4096(name, capsys):
    network, rows, steps, lr = CASES[name]
    data, learner = problem(rows), GradientDescent(lr=lr, steps=steps)
    limit = DynamicalMeanField(network, MuP(), learner, samples=65536)
    rich = limit.prepare(data, order=0, logs=16).train().trajectory.predictions
    lazy = TangentKernel(network, NTK(), learner).prepare(data, order=0, logs=16).train()
    mean = networks(network, data, learner, 4096, 4).mean(axis=0)
    off = np.abs(mean - rich).max()
    lazy_off = np.abs(mean - lazy.trajectory.predictions).max()
    with capsys.disabled():
        print(f"\n{name}: mean field off by {off:.4f}, the lazy limit by {lazy_off:.3f}")
    assert off < 0.03
    assert lazy_off > 5 * off


def test_the_rate_of_approach(capsys):
    """rms over networks, steps and rows; theory: width^-1/2."""
    data, learner = problem(6), GradientDescent(lr=0.5, steps=120)
    limit = DynamicalMeanField(SHALLOW, MuP(), learner, samples=200_000)
    rich = limit.prepare(data, order=0, logs=16).train().trajectory.predictions
    widths, seeds = (32, 128, 512, 2048), (128, 64, 32, 32)
    apart = [
        np.sqrt(np.mean((networks(SHALLOW, data, learner, width, count, 100) - rich) ** 2))
        for width, count in zip(widths, seeds, strict=True)
    ]
    slope = np.polyfit(np.log(widths), np.log(apart), 1)[0]
    with capsys.disabled():
        print(f"\nrms error at widths {widths}: {np.round(apart, 4).tolist()}, slope {slope:.3f}")
    assert -0.62 < slope < -0.42
