"""CPU seconds of a meta-batch of 32 tasks at each width, as a ratio to its floor in the same run:
the two products that no rearrangement avoids, hidden features of all drawings and the update.

    python benchmarks/fewshot.py [--widths 2,32,512,inf] [--batches 20]
"""

import argparse
import time

import numpy as np

from widthwise.spec import read_width
from widthwise.tasks.fewshot import FewShot, LinearNetwork, numbers_for, split
from widthwise.tasks.fewshot.drawings import Drawings


def seconds(work, times: int) -> float:
    work()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--widths", default="2,8,32,128,512,2048,8192,inf")
    asked.add_argument("--batches", type=int, default=20)
    given = asked.parse_args()
    rng, setting = np.random.default_rng(0), FewShot()
    ink = rng.integers(0, 256, (400 * 20, 784), dtype=np.uint8)
    names = tuple(f"{number % 20}/{number}" for number in range(400))
    train, *_ = split(Drawings("noise", ink, np.arange(401) * 20, names), setting)
    drawn = [train.draw(setting, setting.tasks, (0, batch)) for batch in range(given.batches)]
    for word in given.widths.split(","):
        width = read_width(word)
        learner = LinearNetwork(width, numbers_for(width))
        state = learner.initial(train, setting, 0)

        def epoch(learner=learner, first=state):
            state = first
            for episodes in drawn:
                state = learner.step(state, train, episodes, setting).state

        d, n = state.hidden.shape
        queries = setting.tasks * setting.way * setting.queries
        x, back = rng.random((2 * queries, d)), rng.random((queries, n))
        took = seconds(epoch, 1) / given.batches
        floor = seconds(lambda x=x, w=state.hidden: x @ w, given.batches)
        floor += seconds(lambda x=x, b=back: x[: len(b)].T @ b, given.batches)
        operations = 2 * 3 * queries * d * n
        print(
            f"width {word:>5}: {1e3 * took:7.2f} CPU-ms a meta-batch, floor {1e3 * floor:7.2f} "
            f"({operations / 1e6:.0f} MFLOP at {operations / floor / 1e9:.1f} GFLOP/s), "
            f"{took / floor:.1f}x"
        )


if __name__ == "__main__":
    main()
