"""Kernel matrices filled tile by tile, on all cores and devices."""

import itertools
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from widthwise.kernels.path import AbstractPath, Sides
from widthwise.progress import Progress
from widthwise.solve import blocks_of


def fill(
    found: list[np.ndarray], path: AbstractPath, sides: Sides, *, threads: int, progress: bool
) -> None:
    """Writes every tile; of a symmetric matrix the half on and above the diagonal is computed."""
    symmetric = sides.x2 is None
    rows, columns = (blocks_of(len(x), path.rows) for x in (sides.x1, sides.other))
    todo = [(a, b) for a in rows for b in columns if not symmetric or b.start >= a.start]
    if not progress and (threads == 1 or len(todo) == 1):
        for tile in todo:
            _write(found, path, symmetric, *tile)
        return
    devices = jax.devices()
    sizes = [(a.stop - a.start) * (b.stop - b.start) for a, b in todo]
    began, done = time.perf_counter(), itertools.accumulate(sizes)
    with Progress("kernel", sum(sizes), show=progress) as bar:

        def one(number: int) -> None:
            a, b = todo[number]
            with jax.default_device(devices[number % len(devices)]):
                _write(found, path, symmetric, a, b)
            bar.advance(sizes[number])
            rate = next(done) / (time.perf_counter() - began)  # of tiles that are about alike
            bar.say(f"{rate / 1e6:.3g} million entries a second")

        # A tile a thread: with threads inside products too, there would be more than cores.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(one, number) for number in range(len(todo))]
            try:
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
            except BaseException:  # ctrl-C too: what has not begun is not begun
                pool.shutdown(cancel_futures=True)
                raise


def _write(found, path: AbstractPath, symmetric: bool, a: slice, b: slice) -> None:
    for whole, part in zip(found, path.tile(a, b), strict=True):
        whole[a, b] = part
        if symmetric and a != b:
            whole[b, a] = part.T
