"""What projecting gradients changes: the pi-limit against the mean-field limit as the number of
directions grows, and finite networks against it as their directions become as many as neurons.

    OMP_NUM_THREADS=1 python benchmarks/projection.py
"""

import numpy as np
from sklearn.datasets import load_digits

from widthwise import Dense, GradientDescent, MuP, Projection, Readout, Relu
from widthwise.finite import FiniteNetwork, train
from widthwise.limits import lookup
from widthwise.limits.mean_field import DynamicalMeanField
from widthwise.problem import Problem

PLAIN = dict(lr=0.2, steps=30)
UNIT = dict(weight_variance=1.0)
NETS = {
    "two hidden linear": Dense(**UNIT) >> Dense(**UNIT) >> Readout(**UNIT),
    "one hidden ReLU": Dense() >> Relu() >> Readout(),
    "two hidden ReLU": Dense() >> Relu() >> Dense() >> Relu() >> Readout(),
}
RANKS, SEEDS, WIDTH = (16, 64, 256, 1024), 3, 2048


def problem() -> Problem:
    """Zeros against ones: 48 rows to learn from, 64 to compare at."""
    raw, labels = load_digits(return_X_y=True)
    own = np.random.default_rng(0).permutation(np.flatnonzero(labels < 2))[:112]
    x, y = raw[own] / 16, np.where(labels[own, None] == 0, -1.0, 1.0)
    x = (x - x.mean()) / x.std()
    return Problem(x[:48], y[:48], x[48:], y[48:], 0.0, "regression")


def rms(gap) -> float:
    return float(np.sqrt(np.mean(gap**2)))


def main() -> None:
    data, plain = problem(), GradientDescent(**PLAIN)
    for name, net in NETS.items():
        limit = DynamicalMeanField(net, MuP(), plain, 16_384)
        true = limit.prepare(data, order=0, logs=2).train().trajectory.predictions[-1]
        print(f"{name}: rms of the mean-field limit's predictions {rms(true):.3f}")
        for rank in RANKS:
            learner = GradientDescent(**PLAIN, projection=Projection(rank, storage="float64"))
            limit = lookup(net, MuP(), learner)
            runs = [limit.prepare(data, order=seed, logs=2).train() for seed in range(SEEDS)]
            gaps = [rms(run.trajectory.predictions[-1] - true) for run in runs]
            print(f"  pi-limit, {rank} directions: {np.mean(gaps):.4f} away")
        for rank in (None, WIDTH - 32, 3 * WIDTH // 4, WIDTH // 4, WIDTH // 32):
            projection = None if rank is None else Projection(rank)
            learner = GradientDescent(**PLAIN, projection=projection)
            size = FiniteNetwork(net, WIDTH, data.x_train.shape[1], 1, MuP())
            run = train(size, data, learner, lr=PLAIN["lr"], seed=0, order=0, logs=2)[1]
            told = "gradients as they are" if rank is None else f"{rank} directions"
            print(f"  width {WIDTH}, {told}: {rms(run.predictions[-1] - true):.4f} away")


if __name__ == "__main__":
    main()
