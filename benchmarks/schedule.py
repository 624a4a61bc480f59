"""Handing out the tiles of a kernel of five million rows, in simulated time.

The loop is the library's own, `StoredKernel.fill`; what computes is simulated: workers of differing
speed, which die now and then and lose their tile.

    python benchmarks/schedule.py
"""

import argparse
import heapq
import itertools
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from widthwise.kernels.stored import AHEAD, StoredKernel
from widthwise.solve import blocks_of


class Simulated(Executor):
    """Workers in simulated time: whoever is free takes the next tile."""

    def __init__(self, count: int, tiles: int, seconds: float, deaths: float):
        self._free = [(0.0, number) for number in range(count)]
        heapq.heapify(self._free)
        self._rng = np.random.default_rng(0)
        self._speed = self._rng.uniform(0.8, 1.2, count)
        self._seconds, self._deaths, self._ahead = seconds, deaths, AHEAD * count
        self._under_way: list = []
        self._left, self.clock, self.lost, self.most = tiles, 0.0, 0, 0

    def submit(self, fn, /, *args, **kwargs) -> Future:
        future: Future = Future()
        free, number = heapq.heappop(self._free)
        took = self._seconds * self._speed[number] * self._rng.uniform(0.9, 1.1)
        while self._rng.random() < self._deaths:  # part of it is lost, and it is done again
            self.lost += 1
            took += self._seconds * self._rng.random() + 60.0  # until a worker is back
        heapq.heappush(self._free, (free + took, number))
        heapq.heappush(self._under_way, (free + took, self._left, future))
        self._left -= 1
        self.most = max(self.most, len(self._under_way))
        while self._under_way and (len(self._under_way) == self._ahead or not self._left):
            self._end_one()
        return future

    def _end_one(self) -> None:
        at, _, future = heapq.heappop(self._under_way)
        self.clock = max(self.clock, at)
        future.set_result(None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--edge", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a tile on one worker")
    parser.add_argument("--deaths", type=float, default=0.001, help="share of tiles that kill one")
    asked = parser.parse_args()
    blocks = blocks_of(asked.rows, asked.edge)
    todo = list(itertools.combinations_with_replacement(range(len(blocks)), 2))
    pool = Simulated(asked.workers, len(todo), asked.seconds, asked.deaths)
    kernel = SimpleNamespace(
        blocks=lambda: blocks, missing=lambda: todo, folder=Path("tiles"), spec=None
    )
    began = time.process_time()
    StoredKernel.fill(kernel, pool, asked.workers, progress=False)  # type: ignore[arg-type]
    own = time.process_time() - began
    rate = float(np.sum(1 / (asked.seconds * pool._speed)))
    ideal = len(todo) / rate
    print(f"{len(todo):,} tiles of {asked.edge}, {asked.workers} workers: {pool.clock / 3600:.2f} "
          f"hours, {pool.clock / ideal:.3f} of the sum of their speeds; {pool.lost} tiles begun "
          f"again, at most {pool.most} handed out at a time; the loop took {own:.1f} CPU s, "
          f"{own / len(todo) * 1e6:.0f} microseconds a tile")  # fmt: skip


if __name__ == "__main__":
    main()
