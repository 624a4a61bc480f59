"""The convolutional deep kernel machine on MNIST at several nu: accuracy falls as features freeze.

    python benchmarks/dkm_mnist.py FOLDER RESULTS [--train 10000] [--epochs 20]

FOLDER holds MNIST's four files; RESULTS gets one line of JSON for each nu that is done, and beside
it lie checkpoints, written after each epoch: the same command goes on from there. Three layers of
3 x 3 filters with strides of 2 and ReLU, 16, 32 and 64 inducing points, mini-batches of 100 rows.
The accuracy at nu = 1 and below is held against that at nu = 10,000: it falls by more than 5
points where features that learn are worth so much.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np

import widthwise as ww
from widthwise.family import Member
from widthwise.inference import Inducing
from widthwise.learner import Posterior

NUS = (0.1, 1.0, 100.0, 1e4)
POINTS = (16, 32, 64)
NETWORK = (
    ww.Unflatten((28, 28))
    >> ww.Conv(strides=(2, 2)) >> ww.Relu()
    >> ww.Conv(strides=(2, 2)) >> ww.Relu()
    >> ww.Conv(strides=(2, 2)) >> ww.Relu()
    >> ww.GlobalAveragePool() >> ww.Readout(weight_variance=4.0)  # outputs of order one
)  # fmt: skip


def learner_of(nu: float, epochs: int) -> Posterior:
    inducing = Inducing(points=POINTS, epochs=epochs, batch_size=100, lr=0.01)
    return Posterior(prior="deep_gp", likelihood="categorical", nu=nu, inducing=inducing)


def scored(run, data) -> dict:
    """Accuracy and mean log chance of the class, on the test rows."""
    chances, labels = run.predict_proba(data.x_test), np.argmax(data.y_test, axis=1)
    right = np.argmax(chances, axis=1) == labels
    own = chances[np.arange(len(labels)), labels]
    return {
        "accuracy": round(100 * float(np.mean(right)), 2),
        "log_likelihood": round(float(np.mean(np.log(np.maximum(own, 1e-300)))), 4),
        "tested": len(labels),
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("folder", type=Path)
    words.add_argument("results", type=Path)
    words.add_argument("--train", type=int, default=10_000)
    words.add_argument("--test", type=int, default=10_000)
    words.add_argument("--epochs", type=int, default=20)
    asked = words.parse_args()
    done = {}
    if asked.results.exists():
        for line in asked.results.read_text().splitlines():
            found = json.loads(line)
            done[found["nu"], found["train"], found["epochs"]] = found
    data = ww.data.load(str(asked.folder), train=asked.train, test=asked.test)
    for nu in NUS:
        if (nu, asked.train, asked.epochs) in done:
            continue
        began = time.process_time(), time.perf_counter()
        member = Member(NETWORK, math.inf, ww.MuP(), learner_of(nu, asked.epochs))
        kept = asked.results.with_suffix(f".nu{nu:g}.checkpoint")
        run = member.train(data, checkpoint=kept)
        found = {"nu": nu, "train": asked.train, "epochs": asked.epochs} | scored(run, data)
        found |= {
            "cpu_seconds": round(time.process_time() - began[0], 1),
            "seconds": round(time.perf_counter() - began[1], 1),
            "notes": run.notes,
        }
        with asked.results.open("a") as file:
            file.write(json.dumps(found) + "\n")
        kept.unlink()
        done[nu, asked.train, asked.epochs] = found
        print(f"nu {nu:g}: {found['accuracy']} % of {found['tested']:,}, {found['seconds']} s")
    best = max(done[nu, asked.train, asked.epochs]["accuracy"] for nu in NUS if nu <= 1)
    last = done[NUS[-1], asked.train, asked.epochs]["accuracy"]
    print(
        f"Accuracy falls from {best} % at nu <= 1 to {last} % at nu = {NUS[-1]:g}: "
        f"{best - last:.1f} points, wanted over 5."
    )


if __name__ == "__main__":
    main()
