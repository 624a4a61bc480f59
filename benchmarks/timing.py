"""What all benchmarks share: the best of several runs, and this machine's rates."""

import time
from collections.abc import Callable

import numpy as np


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of `repeats` calls, after one that compiles."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def cpu(call: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of the cheapest of `repeats` calls, after one that compiles."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def product_rate(dtype: str, size: int = 2048) -> float:
    """Floating-point operations a second of NumPy's matrix product."""
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype(dtype)
    return 2 * size**3 / best(lambda: matrix @ matrix)
