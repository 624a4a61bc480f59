"""Rows a pi-limit keeps against its accuracy and time, on digits or on CIFAR-10.

python benchmarks/bounded_memory.py                    # digits, 5 seeds
python benchmarks/bounded_memory.py --cifar FOLDER     # 10,000 images of the binary batches
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

import widthwise as ww
from widthwise.measure.agreement import accuracy

# As in the published CIFAR-10 settings: the first layer has 1/10 of the step size, the last 4x.
NET = (
    ww.Dense(weight_variance=64.0, bias_multiplier=0.35, lr_multiplier=0.1)
    >> ww.Relu()
    >> ww.Dense(weight_variance=1.0, bias_multiplier=0.35)
    >> ww.Relu()
    >> ww.Readout(bias_multiplier=0.2, lr_multiplier=4.0)
)


def study(data, learner, shares, seeds, folder: Path | None) -> list[dict]:
    """One row a budget and seed; budgets as shares of the rows that would be seen."""
    seen = learner.steps * learner.batch_size
    found = []
    for seed in range(seeds):
        for share in shares:
            rows = None if share is None else max(2, int(share * seen))
            projection = dataclasses.replace(learner.projection, rows=rows)
            own = dataclasses.replace(learner, projection=projection)
            began = time.perf_counter()
            checkpoint = None if folder is None else folder / f"{seed}-{rows}.part"
            member = ww.Member(NET, ww.inf, ww.MuP(), own)
            run = member.train(data, order=seed, logs=4, checkpoint=checkpoint)
            score = accuracy(run.trajectory.predictions[-1], data.y_test)
            found.append({
                "seed": seed, "rows": rows, "share": share, "accuracy": score,
                "seconds": time.perf_counter() - began, "note": run.notes[0],
            })  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
    return found


def told(found: list[dict], shares) -> None:
    exact = {row["seed"]: row["accuracy"] for row in found if row["share"] is None}
    for share in shares:
        own = [row for row in found if row["share"] == share]
        scores = np.array([row["accuracy"] for row in own])
        apart = scores - np.array([exact[row["seed"]] for row in own])
        name = "all" if share is None else f"{share:.2%}"
        error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else float("nan")
        print(
            f"{name:>8} of the rows: accuracy {scores.mean():.2%}, paired difference "
            f"{apart.mean():+.2%} +- {error:.2%}, {np.mean([r['seconds'] for r in own]):.0f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--keep", type=Path, help="folder for checkpoints")
    asked = parser.parse_args()
    if asked.cifar is None:
        data = ww.data.load("digits", train=1300, test=497)
        projection, shares, seeds, lr = ww.Projection(64), (None, 0.1, 0.05, 0.025, 0.0125), 5, 1.0
        steps, batch = 6 * 1300 // 8, 8
    else:
        data = ww.data.load(str(asked.cifar), train=10_000, test=10_000)
        projection, shares, seeds, lr = ww.Projection(200), (None, 0.05, 0.025), 3, 1.0
        steps, batch = 20 * 10_000 // 32, 32
    learner = ww.GradientDescent(
        lr=asked.lr or lr, steps=steps, batch_size=batch, loss="cross_entropy",
        schedule=ww.Drop(0.8, 0.15), clip=0.4, weight_decay=1e-5, projection=projection,
    )  # fmt: skip
    told(study(data, learner, shares, asked.seeds or seeds, asked.keep), shares)


if __name__ == "__main__":
    main()
