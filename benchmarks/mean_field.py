"""The mean-field limit: CPU seconds after compilation at the settings of published runs, and how
directions, memory and time grow with the rows.

    OMP_NUM_THREADS=1 python benchmarks/mean_field.py
"""

import pickle
import time

import numpy as np
from sklearn.datasets import load_digits

from widthwise import Dense, GradientDescent, MuP, Readout, Relu, Tanh
from widthwise.limits.mean_field import DynamicalMeanField
from widthwise.problem import Problem

UNIT = dict(weight_variance=1.0, bias_multiplier=0.0)
DEEP_TANH = Dense(**UNIT) >> Tanh() >> Dense(**UNIT) >> Tanh() >> Readout(**UNIT)
LINEAR = Dense(**UNIT)
for _ in range(4):
    LINEAR = LINEAR >> Dense(**UNIT)
PLAIN = [  # network, rows, steps, step size, gamma0, samples, CPU seconds of a solver in NumPy
    ("1 hidden tanh", Dense(**UNIT) >> Tanh() >> Readout(**UNIT), 6, 120, 0.5, 1.0, 100_000, 2.2),
    ("2 hidden tanh", DEEP_TANH, 4, 40, 0.6, 1.0, 20_000, 1.3),
    ("5 hidden linear", LINEAR >> Readout(**UNIT), 20, 100, 0.05, 1.5, 8192, 2.55),
]


def problem(rows: int) -> Problem:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, 10)), np.sign(rng.standard_normal((rows, 1)))
    return Problem(x, y, x[:0], y[:0], 0.0, "regression")


def digits(rows: int) -> Problem:
    """Small digits against large ones."""
    images, labels = load_digits(return_X_y=True)
    x, y = (images - images.mean()) / images.std(), np.where(labels[:, None] < 5, 1.0, -1.0)
    return Problem(x[:rows], y[:rows], x[-200:], y[-200:], 0.0, "regression")


def timed(limit: DynamicalMeanField, data: Problem, logs: int = 2):
    """(trained, CPU seconds, wall seconds) of a second training."""
    short = DynamicalMeanField(
        limit.network, limit.scaling, GradientDescent(lr=limit.learner.lr, steps=1), limit.samples
    )
    short.prepare(data, order=0, logs=logs).train()  # compiles
    began, wall = time.process_time(), time.perf_counter()
    trained = limit.prepare(data, order=0, logs=logs).train()
    return trained, time.process_time() - began, time.perf_counter() - wall


def main() -> None:
    for name, network, rows, steps, lr, gamma0, samples, reference in PLAIN:
        learner = GradientDescent(lr=lr, steps=steps)
        limit = DynamicalMeanField(network, MuP(gamma0), learner, samples)
        _, cpu, wall = timed(limit, problem(rows))
        print(
            f"{name}, {rows} rows, {steps} steps: {cpu:.2f} CPU s (wall {wall:.2f} s), "
            f"{cpu / reference:.2f} times the reference's {reference} s"
        )
    wide = dict(weight_variance=2.0, bias_multiplier=0.0)
    deep_relu = Dense(**wide) >> Relu() >> Dense(**wide) >> Relu() >> Readout(**UNIT)
    for name, network, lr in (("2 hidden tanh", DEEP_TANH, 0.5), ("2 hidden relu", deep_relu, 0.1)):
        for rows in (30, 100, 300):
            limit = DynamicalMeanField(network, MuP(), GradientDescent(lr=lr, steps=100))
            trained, cpu, wall = timed(limit, digits(rows), logs=6)
            size = len(pickle.dumps(trained.state)) / 1e6
            losses = trained.trajectory
            print(
                f"{name}, digits, {rows} rows, 100 steps: {cpu:.1f} CPU s (wall {wall:.1f} s), "
                f"state {size:.0f} MB, training loss {losses.train_loss[-1]:.4f}, test loss "
                f"{losses.test_loss[-1]:.3f}\n  " + "\n  ".join(trained.notes),
                flush=True,
            )


if __name__ == "__main__":
    main()
