"""kernel_matrix (NNGP and NTK, float64, three hidden ReLU layers) against the floor: half a matrix
product, and one arctan2 and one square root an entry and layer, at NumPy's rates in the same run.

    python benchmarks/kernel.py
"""

import numpy as np
from timing import best, product_rate

from widthwise import Dense, Readout, Relu, kernel_matrix

ROWS, COLUMNS, DEPTH = 4096, 784, 3


def main() -> None:
    net = Dense() >> Relu() >> Dense() >> Relu() >> Dense() >> Relu() >> Readout()
    x = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    seconds = best(lambda: kernel_matrix(net, x), repeats=3)
    gram = ROWS**2 * COLUMNS / product_rate("float64")  # the symmetric half: 2 flops, halved
    entries = np.random.default_rng(1).uniform(0.1, 1, size=1_000_000)
    rule = best(lambda: np.arctan2(np.sqrt(entries), entries)) / len(entries)
    floor = gram + DEPTH * rule * ROWS**2 / 2
    print(f"kernel_matrix {ROWS} x {ROWS}, d = {COLUMNS}, depth {DEPTH}: {seconds:.2f} s")
    print(f"floor {floor:.2f} s (product {gram:.2f}, rules on one core {floor - gram:.2f})")
    print(f"ratio to the floor: {seconds / floor:.2f}")


if __name__ == "__main__":
    main()
