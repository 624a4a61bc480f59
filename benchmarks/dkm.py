"""The deep kernel machine: iterations and CPU seconds to its optimum, over those of its products.

    python benchmarks/dkm.py [rows]

Three hidden ReLU layers, nu 10, noise 0.1, 8 columns. The floor is the time of NumPy's product for
as many operations as the products and factors of one evaluation and its gradient have, times the
iterations.
"""

import sys
import time

import numpy as np
from timing import product_rate

from widthwise import Dense, MuP, Readout, Relu
from widthwise.learner import Posterior
from widthwise.limits import DeepKernelMachine
from widthwise.problem import Problem

NETWORK = Dense() >> Relu() >> Dense() >> Relu() >> Dense() >> Relu() >> Readout()
FULL_LAYERS = 2  # the first one has the rank of the inputs


def problem(rows: int) -> Problem:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 8))
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.3 * rng.normal(size=(rows, 1))
    y = (y - y.mean()) / y.std()
    return Problem(x, y, x[:0], y[:0], 0.0, "regression")


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    began = time.process_time()
    rate = product_rate("float64")
    rate *= (time.process_time() - began) and 1.0
    learner = Posterior(prior="deep_gp", nu=10.0, noise=0.1)
    limit = DeepKernelMachine(NETWORK, MuP(), learner)
    wall, began = time.perf_counter(), time.process_time()
    prepared = limit.prepare(problem(rows), order=0, logs=2)
    cpu, wall = time.process_time() - began, time.perf_counter() - wall
    print(*prepared.train().notes, sep="\n")
    print(f"{rows} rows: {cpu:.1f} CPU s (wall {wall:.1f} s), compilation included")


if __name__ == "__main__":
    main()
