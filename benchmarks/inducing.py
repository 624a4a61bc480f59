"""The deep kernel machine through inducing points: one evaluation with its gradient against rows.

    python benchmarks/inducing.py [points]

Two hidden layers (squared exponential, then ReLU), 8 columns. Printed are CPU seconds over those of
the first count of rows, beside the ratio of rows, and over a floor: NumPy's time for as many
operations in products as an evaluation needs. Of a row and M points these are, in M^2: 1 for each
of two solves with triangles, 4 for the products with T and a root of the Gram matrix behind the
second hidden layer, 2 for the sum over rows, hence 8; twice that for the gradient, and once more to
compute blocks again.
"""

import sys

import numpy as np
from timing import cpu, product_rate

from widthwise import Dense, MuP, Readout, Relu
from widthwise.limits.dkm.full import at_prior, posed
from widthwise.limits.dkm.layers import gram_layers
from widthwise.limits.dkm.sparse import evaluated, rows_of
from widthwise.network import Rbf
from widthwise.solve import float64

NETWORK = Dense() >> Rbf(0.1) >> Dense() >> Relu() >> Readout()
ROWS = (4_096, 8_192, 16_384, 32_768)
OPERATIONS = 4 * 8  # a row, in squares of the points


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    layers, rng, first = gram_layers(NETWORK), np.random.default_rng(0), None
    rate = product_rate("float64", 1024)
    print(f"{points} inducing points; products run at {rate / 1e9:.1f} GFLOP/s")
    for count in ROWS:
        x = rng.normal(size=(count, 8))
        y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
        some = x[:points]
        fixed = posed(NETWORK, some, y, scaling=MuP(), nus=(10.0, 10.0), noise=0.1)
        rows, free = rows_of(some, x, y), at_prior(layers, fixed)

        def once(fixed=fixed, rows=rows, free=free):
            with float64():
                value, _ = evaluated(layers, fixed, rows, free)
                return float(value[0])

        seconds = cpu(once)
        first = seconds if first is None else first
        floor = OPERATIONS * count * points**2 / rate
        print(
            f"{count:6} rows ({count / ROWS[0]:.0f} times as many): {seconds:.2f} CPU s, "
            f"{seconds / first:.2f} times, {seconds / floor:.1f} times the floor",
            flush=True,
        )


if __name__ == "__main__":
    main()
