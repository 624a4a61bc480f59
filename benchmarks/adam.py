"""The Adam limit: CPU seconds of 100 full-batch steps, its Monte Carlo error, and the ratio to the
floor, its floating-point operations at the rate of a large float32 product on one core.

    OPENBLAS_NUM_THREADS=1 python benchmarks/adam.py [outputs ...]
"""

import sys
import time

import numpy as np

from widthwise import NTK, Adam, Dense, Readout, Relu
from widthwise.limits.adam.compiled import PAIRS
from widthwise.limits.adam.limit import AdamLimit
from widthwise.limits.adam.neurons import GROUP
from widthwise.problem import Problem

ROWS, NEW, INPUTS, STEPS = 1000, 500, 64, 100
NETWORK = Dense() >> Relu() >> Dense() >> Relu() >> Dense() >> Relu() >> Readout()


def problem(outputs: int) -> Problem:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS + NEW, INPUTS))
    y = np.tanh(x @ rng.standard_normal((INPUTS, outputs)) / np.sqrt(INPUTS))
    return Problem(x[:ROWS], y[:ROWS], x[ROWS:], y[ROWS:], 0.0, "regression")


def rate() -> float:
    """Operations a CPU second."""
    a, b = np.ones((4096, 1000), np.float32), np.ones((1000, 1000), np.float32)
    began = time.process_time()
    for _ in range(4):
        a @ b
    return 4 * 2 * a.size * 1000 / (time.process_time() - began)


def operations(neurons: int, input_neurons: int, outputs: int) -> float:
    """Of the draws and the steps, multiplications and additions."""
    fields = neurons * 3 + input_neurons * outputs + neurons * outputs
    draws = 2 * fields * ROWS * (ROWS + NEW)
    visits = input_neurons * (outputs + INPUTS + 1) + 2 * neurons * (outputs + PAIRS)
    return draws + 4 * STEPS * ROWS * (visits + neurons * outputs)


def main() -> None:
    for outputs in map(int, sys.argv[1:] or (1, 10)):
        data = problem(outputs)
        for steps in (2, STEPS):  # the first compiles
            learner = Adam(lr=0.02, steps=steps, eps=1e-4)
            limit = AdamLimit(NETWORK, NTK(), learner, samples=40_960 if steps > 2 else 1024)
            began = time.process_time()
            trained = limit.prepare(data, order=0, logs=8).train()
            cpu = time.process_time() - began
        counts = limit.counts(data)
        work = 2 * operations(GROUP * counts.groups, GROUP * counts.input_groups, outputs)
        floor = work / rate()
        print(f"{outputs} outputs: {cpu:.1f} CPU s, floor {floor:.1f} s, ratio {cpu / floor:.2f}")
        print(f"  {trained.notes[0]}", flush=True)


if __name__ == "__main__":
    main()
