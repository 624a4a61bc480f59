"""The deep kernel machine: iterations and CPU seconds to its optimum, over those of its products.

    python benchmarks/dkm.py [rows]

Three hidden ReLU layers, nu 10, noise 0.1, 8 columns. The floor is the time of as many matrix
products of NumPy as there are, in operations, in the products, factors and solves of one evaluation
with its gradient, times the iterations: a hidden layer past the first (whose rank is that of the
inputs) has 2 products and a factor forwards, 4 products and 2 solves backwards; the readout has a
factor, and 2 solves backwards.
"""

import sys
import time

import numpy as np
from timing import cpu

from widthwise import Dense, MuP, Readout, Relu
from widthwise.limits.dkm.full import best_grams, posed
from widthwise.limits.dkm.layers import gram_layers
from widthwise.limits.dkm.machine import TOLERANCE

NETWORK = Dense() >> Relu() >> Dense() >> Relu() >> Dense() >> Relu() >> Readout()
NU, NOISE = 10.0, 0.1
LAYER, OUTPUT = 6 + 1 / 6 + 1, 1 / 6 + 1  # in products: a solve is half of one, a factor a sixth


def rows_of(count: int):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8))
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.3 * rng.normal(size=(count, 1))
    return x, (y - y.mean()) / y.std()


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    x, y = rows_of(rows)
    layers = gram_layers(NETWORK)
    fixed = posed(NETWORK, x, y, scaling=MuP(), nus=(NU,) * 3, noise=NOISE)
    best_grams(layers, fixed, tolerance=1.0)  # compiles
    wall, began = time.perf_counter(), time.process_time()
    found = best_grams(layers, fixed, tolerance=TOLERANCE)
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    square = np.random.default_rng(0).normal(size=(rows, rows))
    floor = found.minimum.iterations * (2 * LAYER + OUTPUT) * cpu(lambda: square @ square)
    print(
        f"{rows} rows: {found.minimum.iterations} iterations to {found.minimum.residual:.1g} of "
        f"the gradient, {seconds:.1f} CPU s (wall {wall:.1f} s), {seconds / floor:.1f} times the "
        f"floor of {floor:.1f} s; objective {-found.minimum.first:.2f} to "
        f"{-found.minimum.value:.2f}, KL {', '.join(f'{x:.3g}' for x in found.divergences())}"
    )


if __name__ == "__main__":
    main()
