"""Nine regression sets of UCI with their standard splits: deep kernel machines against the Gaussian
processes of the same network, of a Gaussian kernel, and an ensemble of finite networks.

    python benchmarks/uci_regression.py DATA OUT    # uci-regression.tar.xz, or what it unpacks to
    python benchmarks/uci_regression.py DATA OUT --sets yacht bostonHousing --share 1/2

OUT keeps a line of JSON a finished piece (a set's split), and the same command goes on from there:
uci_regression.jsonl, beside this file, has those of RESULTS.md. Two processes that start together
may write to it with --share 1/2 and 2/2. The table is printed at the end, and after Ctrl-C. Sets of
more than 5,000 rows have their first 5 splits only.

The recipe: the log evidence chooses variances and noise of the network's Gaussian process (NNGP),
which then stay; the Gram matrices of the deep kernel machine are learned for nu 100, 10 and 1 in
turn, each from the one before; of these and nu = inf (the NNGP) a fifth of the training rows, held
out, chooses the best by its log-likelihood ("best"), or the largest nu whose log-likelihood is
within one standard error of the best's ("careful", which is Posterior(nu=None)), and it is learned
again on all of them. The Gaussian kernel is that of a layer of this library, so that its noise, its
variances and its inducing points are chosen by the same code. Up to 1,000 rows all is exact; above,
the same number of inducing points, chosen in the same way, stands for them.
"""

import argparse
import io
import itertools
import json
import lzma
import math
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import widthwise as ww
from widthwise.data import Data
from widthwise.family import Member
from widthwise.inference import Inducing
from widthwise.learner import Adam, Posterior
from widthwise.limits.dkm.choice import HELD_OUT, ITERATIONS, NUS, ROUGH, split
from widthwise.limits.dkm.learned import Learned, learn
from widthwise.network import AbstractLayer, Rbf
from widthwise.problem import logged_steps

PROTOCOL = 2  # of what a line holds: a change raises it
MANY, FEW = 5_000, 5  # rows of a set, past which only the first splits are taken
EXACT = 1_000  # rows up to which nothing stands for others
POINTS = 200  # inducing, above
BLOCK = 500  # rows that are predicted at once
HELD = 5  # pieces whose compiled functions are held: Linux lets a process map memory 65,530 times
WIDTH, SEEDS, STEPS, BATCH = 256, 4, 2_000, 256  # of the ensemble
BIASED = ww.Dense(bias_variance=0.1)  # a variance of zero stays zero when it is chosen
NETWORK = BIASED >> ww.Relu() >> BIASED >> ww.Relu() >> ww.Readout(weight_variance=1.0)
GAUSSIAN = ww.Dense() >> Rbf(0.25) >> ww.Readout(weight_variance=1.0)
FINITE = ww.Dense() >> ww.Relu() >> ww.Dense() >> ww.Relu() >> ww.Readout()
CHOSEN = "DKM, best", "DKM, careful"
MODELS = ("NNGP", *(f"DKM, nu {nu:g}" for nu in NUS[1:]), *CHOSEN, "NTK", "Gaussian", "ensemble")


class Unreadable(ValueError):
    """Files that are missing or cut off; one sentence says which."""


class Predicted(NamedTuple):
    """Mean and variance of new targets, in standardised units."""

    mean: np.ndarray
    variance: np.ndarray


class Piece(NamedTuple):
    """A split of a set, in standardised units; `scale` takes targets to their own."""

    name: str
    split: int
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    scale: float

    def scores(self, found: Predicted) -> dict[str, float]:
        """Of the test rows, in the target's units."""
        error, variance = scored(found, self.y_test)
        own = variance - math.log(self.scale)
        return {"rmse": self.scale * error, "log likelihood": own}


def scored(found: Predicted, y: np.ndarray) -> tuple[float, float]:
    """Root of the mean squared error, and log-likelihood a row."""
    return float(np.sqrt(np.mean((y - found.mean) ** 2))), float(np.mean(by_row(found, y)))


def by_row(found: Predicted, y: np.ndarray) -> np.ndarray:
    """Log-likelihoods."""
    return -0.5 * (np.log(2 * np.pi * found.variance) + (y - found.mean) ** 2 / found.variance)


def by_blocks(predict: Callable[[np.ndarray], Any], noise: float, x: np.ndarray) -> Predicted:
    """Of a posterior: noise is added to its variances."""
    parts = [predict(x[i : i + BLOCK]) for i in range(0, len(x), BLOCK)]
    mean = np.concatenate([part.value[:, 0] for part in parts])
    return Predicted(mean, np.concatenate([part.std for part in parts]) ** 2 + noise)


def process(network: AbstractLayer, x: np.ndarray, y: np.ndarray, kernel: Any = "nngp") -> Any:
    """A Gaussian process whose variances and noise the evidence chose."""
    inducing = Inducing(POINTS) if len(x) > EXACT else None
    data = Data.of(x, y[:, None], x[:0], y[:0, None], task="regression")
    learner = Posterior(tune=True, kernel=kernel, inducing=inducing)
    return Member(network, math.inf, ww.NTK(), learner).train(data, logs=2).state


def machines(nngp: Any, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, Learned]]:
    """With their names, from the NNGP downwards, each from the one before."""
    inducing, before = nngp.x_train if len(x) > EXACT else None, None
    hidden = sum(isinstance(layer, ww.Dense) for layer in nngp.network.sequence)
    for nu in NUS[1:]:
        before = learn(
            nngp.network, x, y[:, None], scaling=ww.MuP(), nus=(nu,) * hidden, noise=nngp.noise,
            inducing=inducing, start=before, tolerance=ROUGH, most=ITERATIONS,
        )  # fmt: skip
        yield f"DKM, nu {nu:g}", before


def validated(x: np.ndarray, y: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Of the NNGP and the machines on rows held out: error, log-likelihood, and the standard error
    of what the latter lacks to the best of them."""
    out, fit = split(len(x))
    nngp = process(NETWORK, x[fit], y[fit])
    found, rows = {}, {}
    learned = ((name, own.state) for name, own in machines(nngp, x[fit], y[fit]))
    for name, state in itertools.chain([("NNGP", nngp)], learned):
        predicted = by_blocks(lambda new, s=state: s.predict(new, True), nngp.noise, x[out])
        found[name], rows[name] = scored(predicted, y[out]), by_row(predicted, y[out])
    best = max(rows, key=lambda name: rows[name].mean())
    behind = {name: rows[best] - own for name, own in rows.items()}
    error = {name: standard_error(own) for name, own in behind.items()}
    return {name: (*own, float(error[name])) for name, own in found.items()}


def choices(validation: dict[str, Any]) -> dict[str, str]:
    """Whom the held-out rows choose: the best, and the nearest to the NNGP that is not worse than
    it by more than a standard error."""
    most = max(logs for _, logs, _ in validation.values())
    near = (name for name, (_, logs, error) in validation.items() if most - logs <= error)
    best = (name for name, (_, logs, _) in validation.items() if logs == most)
    return {"DKM, best": next(best), "DKM, careful": next(near)}


def ensemble(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> Predicted:
    """Networks of which the rows held out choose the number of steps, and the noise."""
    out = len(x) // HELD_OUT
    held = Data.of(x[out:], y[out:, None], x[:out], y[:out, None], task="regression")
    whole = Data.of(x, y[:, None], x_test, np.zeros((len(x_test), 1)), task="regression")
    learner = Adam(lr=0.03, steps=STEPS, batch_size=BATCH)

    def trained(data: Data, steps: int) -> np.ndarray:
        own = Adam(lr=learner.lr, steps=steps, batch_size=BATCH)
        runs = [Member(FINITE, WIDTH, ww.MuP(), own).train(data, seed=s) for s in range(SEEDS)]
        return np.stack([run.trajectory.predictions[:, :, 0] for run in runs])

    tried = trained(held, STEPS)  # (seeds, times, rows)
    errors = np.mean((tried.mean(axis=0) - y[:out]) ** 2, axis=1)
    best = int(np.argmin(errors[1:])) + 1
    noise = max(float(errors[best] - tried[:, best].var(axis=0).mean()), 1e-6)
    found = trained(whole, logged_steps(STEPS)[best])[:, -1]
    return Predicted(found.mean(axis=0), found.var(axis=0) + noise)


def measured(piece: Piece) -> dict:
    """A line of the results."""
    x, y, scores, seconds, left = piece.x, piece.y, {}, {}, {}

    def note(name: str, began: float, found: Predicted) -> None:
        scores[name] = piece.scores(found)
        seconds[name] = round(time.process_time() - began, 1)

    def score(name: str, began: float, state: Any) -> None:
        note(
            name, began, by_blocks(lambda new: state.predict(new, True), state.noise, piece.x_test)
        )

    began = time.process_time()
    validation = validated(x, y)
    seconds["choice of nu"] = round(time.process_time() - began, 1)
    began = time.process_time()
    nngp = process(NETWORK, x, y)
    score("NNGP", began, nngp)
    began = time.process_time()
    for name, own in machines(nngp, x, y):
        score(name, began, own.state)
        left[name] = own.optimum.minimum.residual
        began = time.process_time()
    score("NTK", began, process(NETWORK, x, y, "ntk"))
    began = time.process_time()
    score("Gaussian", began, process(GAUSSIAN, x, y))
    began = time.process_time()
    note("ensemble", began, ensemble(x, y, piece.x_test))
    return {
        "protocol": PROTOCOL, "set": piece.name, "split": piece.split, "rows": len(x),
        "scores": scores, "validation": validation, "cpu seconds": seconds, "gradient left": left,
    }  # fmt: skip


def contents(source: Path) -> Iterator[tuple[Path, bytes]]:
    """The files of a folder or an archive."""
    if source.is_dir():
        yield from ((path, path.read_bytes()) for path in source.rglob("data/*.txt"))
        return
    with tarfile.open(source) as archive:
        for member in archive:
            if member.isfile() and Path(member.name).parent.name == "data":
                yield Path(member.name), archive.extractfile(member).read()  # type: ignore


def pieces(source: Path, names: list[str]) -> list[Piece]:
    """Splits of the sets of these names, all of them unless given: first splits first, small sets
    first."""
    files: dict[str, dict[str, bytes]] = {}
    try:
        for path, content in contents(source):
            files.setdefault(path.parent.parent.name, {})[path.name] = content
    except FileNotFoundError:
        raise Unreadable(
            f"There is no {source}: give uci-regression.tar.xz or its folder."
        ) from None
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError):
        raise Unreadable(
            f"{source} is cut off, or is no archive of sets: fetch it again."
        ) from None
    if missing := [name for name in names if name not in files]:
        raise Unreadable(f"{source} has no set {missing[0]}: it has {', '.join(sorted(files))}.")
    found = []
    for name in names or sorted(files):
        found += read(name, files[name], source)
    return sorted(found, key=lambda piece: (piece.split, len(piece.x)))


def read(name: str, own: dict[str, bytes], source: Path) -> list[Piece]:
    def table(file: str) -> np.ndarray:
        return np.loadtxt(io.BytesIO(own[file]), ndmin=2)

    def rows(file: str) -> np.ndarray:
        return table(file).astype(int).ravel()

    try:
        data, features, target = (
            table("data.txt"), rows("index_features.txt"), rows("index_target.txt")
        )  # fmt: skip
        splits = int(table("n_splits.txt")[0, 0])
        count = min(splits, FEW) if len(data) > MANY else splits
        parts = [(rows(f"index_train_{i}.txt"), rows(f"index_test_{i}.txt")) for i in range(count)]
        x, y = data[:, features], data[:, target[0]]
        return [standardised(name, i, x, y, *part) for i, part in enumerate(parts)]
    except (KeyError, ValueError, IndexError):
        raise Unreadable(f"The set {name} in {source} is cut off: fetch it again.") from None


def standardised(name: str, split: int, x, y, train, test) -> Piece:
    """With means and deviations of the training rows; columns that do not vary are dropped."""
    kept = x[train].std(axis=0) > 0
    x = (x[:, kept] - x[train][:, kept].mean(axis=0)) / x[train][:, kept].std(axis=0)
    mean, scale = float(y[train].mean()), float(y[train].std())
    y = (y - mean) / scale
    return Piece(name, split, x[train], y[train], x[test], y[test], scale)


def kept(out: Path) -> list[dict]:
    """What earlier runs finished: whole lines of this protocol."""
    found = []
    for line in out.read_text().splitlines() if out.exists() else ():
        try:
            one = json.loads(line)
        except ValueError:  # a line that was cut off
            continue
        if one.get("protocol") == PROTOCOL:
            found.append(one)
    return found


def told(found: list[dict]) -> None:
    """The table: means and standard errors over splits, and the machine against the NNGP."""
    for name in dict.fromkeys(sorted((one["set"] for one in found), key=str.lower)):
        lines = [one for one in found if one["set"] == name]
        chosen = [choices(one["validation"]) for one in lines]
        for one, own in zip(lines, chosen, strict=True):
            one["scores"] |= {rule: one["scores"][model] for rule, model in own.items()}
        print(f"\n{name}: {lines[0]['rows']} training rows, {len(lines)} splits")
        print(f"{'':14} {'test RMSE':>20} {'log-likelihood a row':>24}")
        for model in MODELS:
            rmse, logs = (across(lines, model, what) for what in ("rmse", "log likelihood"))
            print(f"{model:14} {rmse} {logs}")
        for rule in CHOSEN:
            gains = [gain(lines, rule, *what) for what in (("rmse", -1), ("log likelihood", 1))]
            names = [own[rule] for own in chosen]
            counts = ", ".join(f"{x} {names.count(x)}" for x in dict.fromkeys(names))
            print(f"{rule} better than NNGP by {gains[0]} and {gains[1]}: {counts}")
    seconds = sum(sum(one["cpu seconds"].values()) for one in found)
    print(f"\n{len(found)} pieces, {seconds / 3600:.2f} CPU hours; ± is the standard error.")


def across(lines: list[dict], model: str, what: str) -> str:
    values = np.array([one["scores"][model][what] for one in lines])
    return f"{values.mean():12.4g} ± {standard_error(values):<8.2g}"


def gain(lines: list[dict], rule: str, what: str, better: int) -> str:
    """Over the NNGP, with its paired standard error."""
    own, other = (np.array([one["scores"][x][what] for one in lines]) for x in (rule, "NNGP"))
    gains = better * (own - other)
    return f"{gains.mean():.4g} ± {standard_error(gains):.2g}"


def standard_error(values: np.ndarray) -> float:
    """Of their mean; not a number of one."""
    return values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def share(text: str) -> tuple[int, int]:
    """Which of how many: "1/2"."""
    own, _, of = text.partition("/")
    if not (own.isdigit() and of.isdigit() and 1 <= int(own) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write 1/2 for the first of two")
    return int(own), int(of)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--splits", type=int, metavar="COUNT", help="of each set, the first")
    parser.add_argument("--share", type=share, default=(1, 1), metavar="K/N")
    asked, todo = parser.parse_args(), []
    try:
        todo = pieces(asked.source, asked.sets)
        todo = [p for p in todo if asked.splits is None or p.split < asked.splits]
        done = [(one["set"], one["split"]) for one in kept(asked.out)]
        own, of = asked.share
        left = [p for p in todo if (p.name, p.split) not in done][own - 1 :: of]
        print(
            f"{len(todo)} pieces, {len(done)} kept in {asked.out}, {len(left)} left here",
            flush=True,
        )
        for number, piece in enumerate(left, start=1):
            if number % HELD == 0:
                jax.clear_caches()
            began = time.perf_counter()
            line = measured(piece)
            with asked.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            best = choices(line["validation"])["DKM, best"]
            nngp, chosen = (line["scores"][name]["rmse"] for name in ("NNGP", best))
            print(
                f"{number}/{len(left)} {piece.name} {piece.split}: NNGP {nngp:.4g}, "
                f"{best} {chosen:.4g}; {sum(line['cpu seconds'].values()):.0f} CPU s, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
    except Unreadable as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print(f"Stopped: what was done is in {asked.out}.")
    wanted = {(p.name, p.split) for p in todo}
    if found := [one for one in kept(asked.out) if (one["set"], one["split"]) in wanted]:
        told(found)


if __name__ == "__main__":
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    main()
