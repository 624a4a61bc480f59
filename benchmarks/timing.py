"""What all benchmarks share: the best of several runs, and this machine's rates."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def best(
    call: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of the fastest of `repeats` calls, after one that compiles."""
    call()
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def cpu(call: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds, all threads together, of the cheapest call."""
    return best(call, repeats, time.process_time)


def peer_seconds(python: str, *words: object) -> float:
    """CPU seconds that peer.py prints, in the interpreter of its environment."""
    program = str(Path(__file__).parent / "peer.py")
    said = subprocess.run(
        [python, program, *map(str, words)], capture_output=True, text=True, check=True
    )
    return float(said.stdout.split()[-1])


def product_rate(dtype: str, size: int = 2048) -> float:
    """Floating-point operations a second of NumPy's matrix product."""
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype(dtype)
    return 2 * size**3 / best(lambda: matrix @ matrix)
