"""One entry of the kernels of images of 32 x 32 x 3, NNGP and tangent kernel, in CPU seconds.

python benchmarks/images.py
python benchmarks/images.py --memory pooled
python benchmarks/images.py --peer peer/bin/python     # and neural-tangents: see peer.py
python benchmarks/images.py --portable                 # without Numba: slices in JAX, in float64
"""

import argparse
import resource

import numpy as np
from timing import cpu, peer_seconds

from widthwise import AveragePool, Conv, Erf, Flatten, GlobalAveragePool, Readout, Relu
from widthwise.kernels import displacements, explain, kernel_matrix, matrix


def five(block):
    return block >> block >> block >> block >> block


BLOCK = Conv() >> Relu()
FIVE = five(BLOCK)
POOL = AveragePool()
# Networks, images on either side, and images that the peer takes at once.
CASES = {
    "pooled": (FIVE >> GlobalAveragePool() >> Readout(), 32, 2),
    "pooled erf": (five(Conv() >> Erf()) >> GlobalAveragePool() >> Readout(), 16, 2),
    "myrtle": (
        BLOCK >> BLOCK >> POOL >> BLOCK >> POOL >> BLOCK >> POOL >> Flatten() >> Readout(), 32, 2,
    ),
    "flat": (FIVE >> Flatten() >> Readout(), 256, 16),
}  # fmt: skip


def bytes_of_entries(name: str) -> float:
    """How far a process's peak memory rises, for each entry, while it computes some at once."""
    net, count, _ = CASES[name]
    x, y = np.random.default_rng(0).normal(size=(2, count, 32, 32, 3))
    kernel_matrix(net, x[:16], y[:1], precision="float32")  # compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kernel_matrix(net, x, y, precision="float32")
    rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return 1024 * rise / count**2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="an interpreter that has neural-tangents")
    parser.add_argument("--memory", choices=CASES, help="print the peak memory of one, and stop")
    parser.add_argument("--portable", action="store_true", help="without what Numba compiles")
    asked = parser.parse_args()
    peer, precisions = asked.peer, ("fast", "float32", "float64")
    if asked.portable:
        matrix.FAST, precisions = (displacements.DisplacementsPath,), ("float64",)
    if asked.memory:
        print(f"{asked.memory}: {bytes_of_entries(asked.memory) / 1e6:.3f} MB an entry")
        return
    rng = np.random.default_rng(0)
    for name, (net, count, at_once) in CASES.items():
        x, y = rng.normal(size=(2, count, 32, 32, 3))
        told = ""
        if peer:
            for dtype in ("float64", "float32"):
                other = peer_seconds(peer, name, 5, 32, at_once, dtype) / at_once**2
                told += f"; neural-tangents {1e3 * other:.4g} ms in {dtype}"
        for precision in precisions:
            path = explain(net, x, y, precision=precision).path
            each = cpu(lambda n=net, p=precision, x=x, y=y: kernel_matrix(n, x, y, precision=p), 1)
            print(
                f"{name} {precision}, {path}: {1e3 * each / count**2:.4g} CPU ms{told}", flush=True
            )


if __name__ == "__main__":
    main()
