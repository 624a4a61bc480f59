"""The tangent kernel of vectors against the floor, in CPU seconds: half a matrix product, and one
polynomial an entry, at this machine's rates in the same run.

    python benchmarks/kernel.py
    python benchmarks/kernel.py --peer peer/bin/python     # and neural-tangents: see peer.py
"""

import argparse

import numpy as np
from threadpoolctl import threadpool_limits
from timing import cpu, peer_seconds

from widthwise import Dense, Erf, Readout, Relu
from widthwise.kernels import explain, kernel_matrix
from widthwise.kernels.compiled import of_cosines

ROWS, COLUMNS = 10_000, 784
PEER_ROWS = 2000  # its kernels do not fit into memory for all of them


def chain(function, depth: int, **settings):
    net = Dense(**settings) >> function
    for _ in range(depth - 1):
        net = net >> Dense(**settings) >> function
    return net >> Readout(**settings)


def product_seconds(kind: type) -> float:
    """Of half of the matrix product, on one core at a time."""
    x, y = np.random.default_rng(0).normal(size=(2, 2048, COLUMNS)).astype(kind)
    with threadpool_limits(1, "blas"):
        return cpu(lambda: x @ y.T) * (ROWS / 2048) ** 2 / 2  # x @ x.T would be half already


def polynomial_seconds(kind: type) -> float:
    """Of one polynomial of degree 8 and a square root for half of the entries, and their writing
    to memory that is there."""
    cosines = np.random.default_rng(0).uniform(-1, 1, size=(512, 512)).astype(kind)
    series = tuple(map(kind, np.linspace(0.1, 0.2, 9))), (kind(0),)
    ones, found = np.ones(512, kind), np.empty((512, 512), kind)
    least = kind(0)
    once = cpu(lambda: of_cosines(cosines, least, series, series, kind, ones, ones, found), 20)
    return once * (ROWS / 512) ** 2 / 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="an interpreter that has neural-tangents")
    peer = parser.parse_args().peer
    x = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    single, double = product_seconds(np.float32), product_seconds(np.float64)
    entries = polynomial_seconds(np.float32)
    floors = {"fast": single + entries, "float32": double + entries,
              "float64": double + polynomial_seconds(np.float64)}  # fmt: skip
    plain = {"bias_multiplier": 0.0}
    cases = [
        ("relu", chain(Relu(), 3, **plain), 3, ("fast", "float32", "float64")),
        ("relu", chain(Relu(), 10, **plain), 10, ("fast", "float32")),
        ("erf", chain(Erf(), 3, bias_variance=0.01), 3, ("float32", "float64")),
    ]
    for function, net, depth, precisions in cases:
        other = None
        if peer:
            other = peer_seconds(peer, function, depth, COLUMNS, PEER_ROWS, "float64")
            other *= (ROWS / PEER_ROWS) ** 2
        for precision in precisions:
            path = explain(net, x, which="ntk", precision=precision).path
            seconds = cpu(lambda n=net, p=precision: kernel_matrix(n, x, which="ntk", precision=p))
            floor = floors[precision]
            told = "" if other is None else f"; neural-tangents {other:.1f}, {other / seconds:.1f}x"
            print(
                f"{function} depth {depth} {precision}, {path}: {seconds:.2f} CPU s, floor "
                f"{floor:.2f}, {seconds / floor:.2f}{told}",
                flush=True,
            )


if __name__ == "__main__":
    main()
