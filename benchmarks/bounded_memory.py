"""Rows a pi-limit keeps against its accuracy and time, on digits or on CIFAR-10.

python benchmarks/bounded_memory.py                                  # digits, 5 seeds
python benchmarks/bounded_memory.py --cifar FOLDER                   # 10,000 images, 3 pairs
python benchmarks/bounded_memory.py --cifar FOLDER --validation      # tuned on 2,000 of them
python benchmarks/bounded_memory.py --cifar FOLDER --kernel          # NTK of the same layers
python benchmarks/bounded_memory.py --cifar FOLDER --published --keep RUNS
                                     # all images, 50 epochs: stop it and go on as you like
FOLDER holds CIFAR-10's binary batches.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import scipy.linalg

import widthwise as ww
from widthwise.data import Data
from widthwise.kernels import kernel_matrix
from widthwise.limits.pi import compress
from widthwise.measure.agreement import accuracy


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained, and how."""

    rank: int
    batch: int
    epochs: int
    rows: tuple[int | None, ...]
    seeds: int
    lr: float = 1.0
    clip: float = 0.4
    weight_decay: float = 1e-5
    first: float = 0.1  # the first layer's share of the step size
    last: float = 4.0

    def network(self):
        """Two hidden layers, whose forms start with g of `rank` numbers of size 1."""
        bias = 0.35
        return (
            ww.Dense(
                weight_variance=float(self.rank), lr_multiplier=self.first,
                bias_multiplier=bias / np.sqrt(self.first),
            )
            >> ww.Relu()
            >> ww.Dense(weight_variance=1.0, bias_multiplier=bias)
            >> ww.Relu()
            >> ww.Readout(lr_multiplier=self.last, bias_multiplier=bias / 2 / np.sqrt(self.last))
        )  # fmt: skip

    def learner(self, count: int, rows: int | None) -> ww.GradientDescent:
        return ww.GradientDescent(
            lr=self.lr, steps=self.epochs * count // self.batch, batch_size=self.batch,
            loss="cross_entropy", schedule=ww.Drop(0.8, 0.15), clip=self.clip,
            weight_decay=self.weight_decay, projection=ww.Projection(self.rank, rows=rows),
        )  # fmt: skip


DIGITS = Setting(64, 8, 6, (None, 780, 390, 195, 98), seeds=5)
CIFAR = Setting(
    200, 32, 20, (None, 20_000, 10_000, 5000, 2500), seeds=3, weight_decay=1e-4, first=0.4
)
PUBLISHED = Setting(400, 8, 50, (10_000,), seeds=1, first=0.4)


class Timed:
    """A function, and the CPU seconds spent in it."""

    def __init__(self, function):
        self.function, self.cpu = function, 0.0

    def __call__(self, *given, **named):
        began = time.process_time()
        found = self.function(*given, **named)
        self.cpu += time.process_time() - began
        return found


def study(data: Data, setting: Setting, folder: Path | None, logs: int) -> list[dict]:
    """One row a budget and seed; told as they come."""
    found = []
    projecting = compress.compress = Timed(compress.compress)
    for seed in range(setting.seeds):
        for rows in setting.rows:
            projecting.cpu = 0.0
            began, cpu = time.perf_counter(), time.process_time()
            learner = setting.learner(len(data.x_train), rows)
            member = ww.Member(setting.network(), ww.inf, ww.MuP(), learner)
            checkpoint = None if folder is None else folder / f"{seed}-{rows}.part"
            run = member.train(data, order=seed, logs=logs, checkpoint=checkpoint)
            scores = [accuracy(p, data.y_test) for p in run.trajectory.predictions]
            found.append({
                "seed": seed, "rows": rows, "accuracy": scores[-1], "steps": learner.steps,
                "along": dict(zip(run.trajectory.steps.tolist(), scores, strict=True)),
                "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu,
                "projecting": projecting.cpu,
                "note": run.notes[0],
            })  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
    return found


def told(found: list[dict], setting: Setting, count: int) -> None:
    seen = setting.epochs * count
    exact = {row["seed"]: row["accuracy"] for row in found if row["rows"] is None}
    for rows in setting.rows:
        own = [row for row in found if row["rows"] == rows]
        scores = np.array([row["accuracy"] for row in own])
        name = "all rows" if rows is None else f"{rows} rows, {rows / seen:.2%}"
        cpu, projecting = (np.mean([row[key] for row in own]) for key in ("cpu", "projecting"))
        line = f"{name}: accuracy {scores.mean():.2%}, {cpu:.0f} CPU s"
        line += f", {projecting / cpu:.0%} of them in projections" if rows else ""
        if exact and len(own) > 1:
            apart = scores - np.array([exact[row["seed"]] for row in own])
            error = apart.std(ddof=1) / np.sqrt(len(apart))
            line += f", paired difference {apart.mean():+.2%} +- {error:.2%}"
        print(line)


def held_out(data: Data) -> Data:
    """The last fifth of the training rows in the place of the test rows."""
    cut = 4 * len(data.x_train) // 5
    return dataclasses.replace(
        data, x_train=data.x_train[:cut], y_train=data.y_train[:cut],
        x_test=data.x_train[cut:], y_test=data.y_train[cut:],
    )  # fmt: skip


def kernel(data: Data) -> None:
    """Regression with the tangent kernel, bias and ridge chosen on the rows held out."""

    def scored(on: Data, bias: float, ridges: tuple[float, ...]) -> list[float]:
        hidden = ww.Dense(weight_variance=2.0, bias_multiplier=bias)
        network = hidden >> ww.Relu() >> hidden >> ww.Relu() >> ww.Readout(bias_multiplier=bias)
        among = kernel_matrix(network, on.x_train).ntk
        across = kernel_matrix(network, on.x_test, on.x_train).ntk
        found = []
        for ridge in ridges:
            penalised = among + ridge * np.eye(len(among))
            weights = scipy.linalg.solve(penalised, on.y_train, assume_a="pos")
            found.append(accuracy(across @ weights, on.y_test))
            print(f"NTK, bias {bias}, ridge {ridge}: {found[-1]:.2%}", flush=True)
        return found

    ridges = (0.01, 0.1, 1.0, 10.0, 100.0)
    tried = {bias: scored(held_out(data), bias, ridges) for bias in (0.0, 0.3, 1.0)}
    bias = max(tried, key=lambda bias: max(tried[bias]))
    ridge = ridges[int(np.argmax(tried[bias]))]
    print("The best of these on the test rows:")
    scored(data, bias, (ridge,))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--kernel", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for checkpoints")
    for field in dataclasses.fields(Setting):
        if field.name not in ("rows", "rank"):
            parser.add_argument(f"--{field.name}", type=type(field.default) if field.default is not
                                dataclasses.MISSING else int)  # fmt: skip
    parser.add_argument("--rows", type=lambda text: tuple(
        None if word == "all" else int(word) for word in text.split(",")))  # fmt: skip
    asked = parser.parse_args()
    setting, logs = DIGITS, 4
    if asked.cifar is None:
        data = ww.data.load("digits", train=1300, test=497)
    else:
        setting, logs = (PUBLISHED, 12) if asked.published else (CIFAR, 8)
        count = 50_000 if asked.published else 10_000
        data = ww.data.load(str(asked.cifar), train=count, test=10_000)
        if asked.validation:
            data = held_out(data)
        if asked.kernel:
            return kernel(data)
    given = {field.name: getattr(asked, field.name, None) for field in dataclasses.fields(Setting)}
    setting = dataclasses.replace(setting, **{k: v for k, v in given.items() if v is not None})
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
    told(study(data, setting, asked.keep, logs), setting, len(data.x_train))


if __name__ == "__main__":
    main()
