"""A pi-limit that keeps a twentieth of its rows predicts as one that keeps all."""

import numpy as np
import pytest

import widthwise as ww
from widthwise.measure.agreement import accuracy

pytestmark = pytest.mark.slow
BIAS = 0.35
RANK, BATCH, EPOCHS, TRAIN = 64, 8, 6, 1300
ROWS = TRAIN * EPOCHS // 20


def network():
    """Two hidden layers with the published settings of CIFAR-10."""
    first = ww.Dense(
        weight_variance=float(RANK), lr_multiplier=0.1, bias_multiplier=BIAS / np.sqrt(0.1)
    )
    hidden = ww.Dense(weight_variance=1.0, bias_multiplier=BIAS)
    end = ww.Readout(lr_multiplier=4.0, bias_multiplier=BIAS / 4)
    return first >> ww.Relu() >> hidden >> ww.Relu() >> end


def test_a_twentieth_of_the_rows_on_digits():
    """Over five orders of the rows the mean accuracy stays within half a point."""
    data = ww.data.load("digits", train=TRAIN, test=497)
    found = []
    for order in range(5):
        for rows in (None, ROWS):
            learner = ww.GradientDescent(
                lr=1.0, steps=EPOCHS * TRAIN // BATCH, batch_size=BATCH, loss="cross_entropy",
                schedule=ww.Drop(0.8, 0.15), clip=0.4, weight_decay=1e-5,
                projection=ww.Projection(RANK, rows=rows),
            )  # fmt: skip
            run = ww.Member(network(), ww.inf, ww.MuP(), learner).train(data, order=order, logs=2)
            found.append(accuracy(run.trajectory.predictions[-1], data.y_test))
    whole, kept = np.array(found).reshape(5, 2).T
    print(f"accuracy {whole} with all rows, {kept} with {ROWS}")
    assert whole.mean() > 0.95
    assert abs(kept.mean() - whole.mean()) < 0.005
