"""The 90 small sets of UCI (at most 5,000 rows, no test file of their own) with kernels at width
infinity, against 81.95 % of Arora et al. (2020), "Harnessing the power of infinitely wide deep
nets on small-data tasks", and beside their kernels others of this library.

    python benchmarks/uci.py ARCHIVE --keep FOLDER    # uci121.tar.xz, or the folder it unpacks to

Their protocol: one-versus-one support vector machines with the tangent kernels of ReLU networks
without biases, 1 to 5 layers of weights of which the first 0 to depth - 1 are left untrained, and
C from 0.01 to 10,000. The split of conxuntos.dat chooses the kernel and C (the first of equals, by
depth, untrained layers and C); what is reported is the mean accuracy on the four folds of
conxuntos_kfold.dat. Columns are standardised in the files, and rows are used as they are.

FOLDER keeps what is done, a file a set: the same command goes on from there. Two processes, each
with one thread for matrix products.
"""

import argparse
import io
import json
import lzma
import multiprocessing
import os
import signal
import sys
import tarfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC

import widthwise as ww
from widthwise.kernels import kernel_matrix
from widthwise.network import AbstractLayer
from widthwise.solve import cholesky
from widthwise.store import write_whole

PROTOCOL = 1  # of what a kept file holds: a change raises it
ROWS = 5000  # at most, of a set
COSTS = tuple(10.0**power for power in range(-2, 5))
NOISES = tuple(10.0**power for power in range(2, -5, -1))  # of the kernel's mean diagonal
DEPTH = 5  # layers of weights, at most
# Steps of a support vector machine times its training rows, at most. Without a bound a linear
# kernel at C = 10,000 takes hours on classes that overlap, and ends where it was at C = 10.
STEPS = 5e8
PUBLISHED = {"NTK, SVM": "81.95 ± 14.10, P90 88.89, P95 72.22, PMA 95.72 ± 5.17"}


class Set(NamedTuple):
    """Rows, their classes, and which of them train and which are held out."""

    name: str
    x: np.ndarray
    labels: np.ndarray
    tuning: tuple[np.ndarray, np.ndarray]
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]


class Kernels(NamedTuple):
    """One network's kernels. Theirs are those of x.y, as their code has it, so that C is theirs;
    ours are of x.y / columns, and divided by the mean of the diagonal."""

    name: str
    network: AbstractLayer
    ours: bool

    def matrices(self, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """With their names."""
        count, columns = x.shape
        x = padded(x)
        x = x * np.sqrt(x.shape[1] / (columns if self.ours else 1))
        if self.ours:
            for which, found in kernel_matrix(self.network, x)._asdict().items():
                found = found[:count, :count]
                yield f"{which}, {self.name}", found / found.diagonal().mean()
        else:
            yield self.name, kernel_matrix(self.network, x, which="ntk")[:count, :count]


def padded(x: np.ndarray) -> np.ndarray:
    """Columns of zeros, which change no product of rows, and rows again, which are cut off: a few
    shapes, which are compiled once a process, serve all sets."""
    rows = 128 if len(x) <= 128 else -(-len(x) // 512) * 512
    columns = -(-x.shape[1] // 256) * 256
    x = np.pad(x, ((0, 0), (0, columns - x.shape[1])))
    return np.pad(x, ((0, rows - len(x)), (0, 0)), mode="edge")


def theirs(depth: int, untrained: int) -> Kernels:
    own = {"weight_variance": 1.0, "bias_multiplier": 0.0}
    layers = [ww.Dense(**own, lr_multiplier=float(k >= untrained)) for k in range(depth - 1)]
    network = ww.Readout(**own)
    for layer in reversed(layers):
        network = layer >> ww.Relu() >> network
    return Kernels(f"ntk, depth {depth}, {untrained} untrained", network, ours=False)


def with_biases(function: AbstractLayer, hidden: int) -> Kernels:
    layer = ww.Dense(bias_variance=0.1) >> function
    network = layer
    for _ in range(hidden - 1):
        network = network >> layer
    return Kernels(f"{hidden} x {function!r}", network >> ww.Readout(), ours=True)


FAMILIES = {
    "NTK": [theirs(depth, k) for depth in range(1, DEPTH + 1) for k in range(depth)],
    "NNGP": [theirs(depth, depth - 1) for depth in range(2, DEPTH + 1)],
    **{
        f"{kind.__name__}, biases": [with_biases(kind(), hidden) for hidden in (1, 2, 3)]
        for kind in (ww.Relu, ww.Erf, ww.Gelu)
    },
}


def support_vectors(among, across, labels, cost: float) -> tuple[np.ndarray, bool]:
    """Predictions, and whether the machine was stopped before it had converged."""
    # shrinking would do most of its work outside of the steps that are bounded
    bound = int(STEPS / len(among))
    machine = SVC(kernel="precomputed", C=cost, shrinking=False, max_iter=bound)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(among, labels)
    return machine.predict(across), bool(machine.fit_status_)


def posterior(among, across, labels, noise: float) -> tuple[np.ndarray, bool]:
    """Predictions of `Posterior(noise=...)`: the likeliest class is that of the largest mean."""
    classes, coded = np.unique(labels, return_inverse=True)
    level = noise * among.diagonal().mean()
    weights = cholesky(among + level * np.eye(len(among))).solve(np.eye(len(classes))[coded])
    return classes[np.argmax(across @ weights, axis=1)], False


MACHINES = {"SVM": (support_vectors, COSTS), "posterior": (posterior, NOISES)}


def cut(kernel: np.ndarray, split) -> tuple[np.ndarray, np.ndarray]:
    """The kernel of the training rows, and that of the rows held out against them."""
    train, held_out = split
    return kernel[np.ix_(train, train)], kernel[np.ix_(held_out, train)]


def tuned(given: Set, families: list[Kernels]) -> dict[str, dict]:
    """For each machine the kernel and strength that are best on the tuning split, and how often
    a machine was stopped."""
    best = {name: {"tuning": -1.0, "stopped": 0} for name in MACHINES}
    train, held_out = (given.labels[rows] for rows in given.tuning)
    for kernel, matrix in (pair for family in families for pair in family.matrices(given.x)):
        among, across = cut(matrix, given.tuning)
        for name, (machine, strengths) in MACHINES.items():
            for strength in strengths:
                predicted, stopped = machine(among, across, train, strength)
                best[name]["stopped"] += stopped
                if (accuracy := float(np.mean(predicted == held_out))) > best[name]["tuning"]:
                    best[name] |= {
                        "tuning": accuracy, "kernel": kernel, "strength": strength,
                        "stopped there": stopped,
                    }  # fmt: skip
    return best


def tested(given: Set, families: list[Kernels], best: dict[str, dict]) -> None:
    """Adds each machine's accuracy on the folds, on average."""
    wanted = {found["kernel"] for found in best.values()}
    again = [family for family in families if any(name.endswith(family.name) for name in wanted)]
    for kernel, matrix in (pair for family in again for pair in family.matrices(given.x)):
        for name, found in best.items():
            if found["kernel"] == kernel:
                scores = []
                for fold in given.folds:
                    train, test = (given.labels[rows] for rows in fold)
                    machine, _ = MACHINES[name]
                    predicted, _ = machine(*cut(matrix, fold), train, found["strength"])
                    scores.append(np.mean(predicted == test))
                found["test"] = float(np.mean(scores))


def forest(given: Set) -> float:
    """A random forest's accuracy on the folds, as scikit-learn has it: the peer."""
    found = []
    for train, test in given.folds:
        machine = RandomForestClassifier(200, random_state=0).fit(
            given.x[train], given.labels[train]
        )
        found.append(machine.score(given.x[test], given.labels[test]))
    return float(np.mean(found))


def measured(given: Set) -> dict:
    """What is kept of a set."""
    cells, seconds = {}, {}
    for name, families in FAMILIES.items():
        began = time.process_time()
        best = tuned(given, families)
        tested(given, families, best)
        cells |= {f"{name}, {machine}": found for machine, found in best.items()}
        seconds[name] = time.process_time() - began
    began = time.process_time()
    peer = forest(given)
    seconds["forest"] = time.process_time() - began
    return {
        "protocol": PROTOCOL, "name": given.name, "rows": len(given.x), "cells": cells,
        "forest": peer, "cpu seconds": seconds,
    }  # fmt: skip


class Unreadable(ValueError):
    """Files that are missing or cut off; one sentence says which."""


def small_sets(source: Path) -> list[Set]:
    """Those of the protocol, from a folder or an archive of a folder a set."""
    files: dict[str, dict[str, bytes]] = {}
    try:
        for path, content in contents(source):
            files.setdefault(path.parent.name, {})[path.name] = content
    except FileNotFoundError:
        raise Unreadable(f"There is no {source}: give uci121.tar.xz or its folder.") from None
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError):
        raise Unreadable(
            f"{source} is cut off, or is no archive of UCI sets: fetch it again."
        ) from None
    found = []
    for name, own in sorted(files.items()):
        if f"{name}.txt" in own:
            facts = dict(line.split() for line in own[f"{name}.txt"].decode().splitlines())
            if "n_patrons2=" not in facts and int(facts["n_patrons1="]) <= ROWS:
                found.append(read(name, facts, own, source))
    if not found:
        raise Unreadable(f"{source} holds no set of UCI: give uci121.tar.xz or its folder.")
    return found


def contents(source: Path) -> Iterator[tuple[Path, bytes]]:
    if source.is_dir():
        yield from ((path, path.read_bytes()) for path in source.rglob("*.*") if path.is_file())
        return
    with tarfile.open(source) as archive:
        for member in archive:
            if member.isfile():
                yield Path(member.name), archive.extractfile(member).read()  # type: ignore


def read(name: str, facts: dict[str, str], own: dict[str, bytes], source: Path) -> Set:
    """A set of its files: a header and lines of number, inputs and class; lines of row numbers."""
    try:
        table = np.loadtxt(io.BytesIO(own[facts["fich1="]]), skiprows=1, ndmin=2)
        lines = own["conxuntos.dat"].splitlines() + own["conxuntos_kfold.dat"].splitlines()
        parts = [np.array(line.split(), int) for line in lines if line.strip()]
    except (KeyError, ValueError):
        table, parts = np.empty((0, 0)), []
    shape = int(facts["n_patrons1="]), int(facts["n_entradas="]) + 2
    if table.shape != shape or len(parts) != 10 or max(map(max, parts)) >= len(table):
        raise Unreadable(f"The set {name} in {source} is cut off or damaged: fetch it again.")
    splits = tuple(zip(parts[::2], parts[1::2], strict=True))
    return Set(name, table[:, 1:-1], table[:, -1].astype(int), splits[0], splits[1:])


def kept(folder: Path | None, name: str) -> dict | None:
    """What an earlier run found, where a whole file of this protocol tells it."""
    try:
        found = json.loads((folder / f"{name}.json").read_text()) if folder else {}
    except (OSError, ValueError):
        return None
    return found if found.get("protocol") == PROTOCOL else None


def worker() -> None:
    """Ends when the program that started it was killed, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def run(sets: list[Set], folder: Path | None, processes: int) -> list[dict]:
    """What is known of every set, computed where it is not kept; a line a set."""
    found = [one for given in sets if (one := kept(folder, given.name)) is not None]
    if found:
        print(f"{len(found)} of {len(sets)} sets are kept in {folder}")
    done = {one["name"] for one in found}
    left = sorted((s for s in sets if s.name not in done), key=lambda s: -len(s.x))
    spawned = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    pool = ProcessPoolExecutor(processes, spawned, worker)
    try:
        for future in as_completed([pool.submit(measured, given) for given in left]):
            one = future.result()
            if folder:
                write_whole(folder / f"{one['name']}.json", json.dumps(one, indent=1).encode())
            found.append(one)
            ours = one["cells"]["NTK, SVM"]
            print(
                f"{len(found):3}/{len(sets)} {one['name']}, {one['rows']} rows: "
                f"{ours['test']:.2%} by {ours['kernel']}, C = {ours['strength']:g}; "
                f"{sum(one['cpu seconds'].values()):.0f} CPU s",
                flush=True,
            )
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return found


def chosen(found: list[dict]) -> list[str]:
    """The cell of each set that is best on its tuning split; of equals the one that is best on
    the tuning splits of all sets, on average."""
    cells = list(found[0]["cells"])
    mean = {cell: np.mean([one["cells"][cell]["tuning"] for one in found]) for cell in cells}
    return [
        max(cells, key=lambda cell, one=one: (one["cells"][cell]["tuning"], mean[cell]))
        for one in found
    ]


def told(found: list[dict]) -> None:
    """The table: as theirs, but with the best of these rows in the place of the best of all."""
    cells = list(found[0]["cells"])
    rows = {cell: [one["cells"][cell]["test"] for one in found] for cell in cells}
    picks = chosen(found)
    rows["best cell on the tuning split"] = [
        one["cells"][pick]["test"] for one, pick in zip(found, picks, strict=True)
    ]
    rows["random forest (scikit-learn)"] = [one["forest"] for one in found]
    table = {name: 100 * np.array(row) for name, row in rows.items()}
    best = np.max(list(table.values()), axis=0)
    print(f"\n{'classifier':32} {'average':>13} {'P90':>6} {'P95':>6} {'PMA':>13}")
    for name, row in table.items():
        share = 100 * row / best
        p90, p95 = (100 * np.mean(share >= bound) for bound in (90, 95))
        print(
            f"{name:32} {row.mean():5.2f} ± {row.std():5.2f} {p90:6.2f} {p95:6.2f} "
            f"{share.mean():5.2f} ± {share.std():5.2f}"
        )
    print(
        f"Average accuracy in % over {len(found)} sets; P90, P95: sets where it is 90, 95 % of the "
        "best of these rows; PMA: mean of that share."
    )
    print(f"Published, against the best of 180 classifiers: {PUBLISHED}")
    print("Chosen: " + ", ".join(f"{cell} {picks.count(cell)}" for cell in cells))
    stopped = [one["cells"]["NTK, SVM"] for one in found]
    print(
        f"NTK, SVM: {sum(one['stopped'] for one in stopped)} of {105 * len(found)} machines "
        f"stopped early, {sum(one['stopped there'] for one in stopped)} of those chosen"
    )
    kinds = found[0]["cpu seconds"]
    seconds = {kind: sum(one["cpu seconds"][kind] for one in found) for kind in kinds}
    print("CPU s: " + ", ".join(f"{kind} {took:.0f}" for kind, took in seconds.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="ARCHIVE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes that are started below
    began = time.perf_counter()
    try:
        sets = small_sets(asked.source)
        if asked.keep is not None:
            asked.keep.mkdir(parents=True, exist_ok=True)
        found = run(sets, asked.keep, asked.processes)
    except Unreadable as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        where = f"what was done is in {asked.keep}" if asked.keep else "nothing was kept"
        sys.exit(f"Stopped: {where}.")
    told(found)
    print(f"{time.perf_counter() - began:.0f} s in {asked.processes} processes")


if __name__ == "__main__":
    main()
