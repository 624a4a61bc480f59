"""Every method on one data set: step sizes chosen on rows held out, then trained from all seeds."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from widthwise import __version__, settings, store
from widthwise.data import Data
from widthwise.learner import AbstractLearner, Adam
from widthwise.network import AbstractLayer, Dense, Readout, Relu
from widthwise.problem import Diverged
from widthwise.progress import Progress
from widthwise.tasks.optimiser_gap.methods import LIMIT, AbstractMethod, Training, methods_of
from widthwise.tasks.optimiser_gap.outcome import Outcome, Split, split_of

THREE_HIDDEN = Dense() >> Relu() >> Dense() >> Relu() >> Dense() >> Relu() >> Readout()
FACTOR = 2.0  # between two step sizes
MOST = 16  # step sizes that are tried for one method
OUTCOME, AGAIN = "outcome", "train it again"


class Tuned(NamedTuple):
    """What came of one method."""

    tried: tuple[Outcome, ...]  # one a step size, ascending, from seed 0
    best: tuple[Outcome, ...]  # one a seed, at the size with the lowest loss on rows held out

    @property
    def inside(self) -> bool:
        """Whether the best size has worse ones on both sides."""
        rates = [one.lr for one in self.tried]
        return len(rates) < 2 or rates[0] != self.best[0].lr != rates[-1]

    @property
    def seconds(self) -> float:
        """Of all trainings."""
        return sum(one.seconds for one in (*self.tried, *self.best[1:]))  # seed 0 is among tried


@dataclasses.dataclass(frozen=True)
class OptimiserGap:
    """How much of the gap between kernels and finite networks the optimiser explains.

    >>> study = OptimiserGap(width=32, learner=Adam(steps=5, eps=1e-3), seeds=1, samples=1024)
    >>> found = study.run(load("iris"), Path("gap"))  # doctest: +SKIP
    >>> print(finding_of(found).sentence)  # doctest: +SKIP

    Finite networks under Adam, the same linearised, and the Adam limit stand beside kernel
    regression by gradient descent, with heavy-ball momentum, and to its end. All train for equal
    steps on equal batches, at infinity from the initial functions of the finite networks. Of each
    method the step sizes around its default are tried, in ratios of two, and more at an end while
    the best is there; the best at which no seed diverges is taken.

    Args:
        network: a plain stack of layers.
        learner: Adam; the steps, batches, loss and schedule of the others are its own.
        width: of the finite networks.
        seeds: of initial weights and batches.
        sizes: step sizes to begin with, at least three.
        held_out: training rows that choose the step size, a fifth unless given.
        samples: of the Adam limit, whose Monte Carlo error the finding tells.
        seed: draws the rows that are held out.
    """

    network: AbstractLayer = THREE_HIDDEN
    learner: AbstractLearner = Adam(steps=300, batch_size=100, eps=1e-4)
    width: int = 1024
    seeds: int = 5
    sizes: int = 5
    held_out: int | None = None
    samples: int = 16_384
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.learner, Adam):
            raise ValueError(f"learner is {self.learner!r}: the question is about Adam(...).")
        if self.learner.weight_decay:
            raise ValueError(
                f"learner is {self.learner!r}, which decays weights, which kernels have none of: "
                "leave weight_decay out."
            )
        for name, low in (("width", 1), ("seeds", 1), ("sizes", 3), ("samples", 1024), ("seed", 0)):
            settings.whole(self, name, low=low)

    def run(
        self,
        data: Data,
        folder: Path,
        *,
        say: Callable[[str], None] = lambda sentence: None,
        progress: bool = False,
    ) -> dict[str, Tuned]:
        """Trains every method and returns what came of each, by name.

        Every training is kept in the folder; the same call reads what is there and goes on.

        Raises EmptyCell, DataError or MemoryError, before anything trains, for what has no Adam
        limit, too few rows, and neurons or kernels that do not fit.
        """
        assert isinstance(self.learner, Adam)
        split = split_of(data, self.learner.loss, self.held_out, self.seed)
        methods = methods_of(self.network, self.width, self.learner, self.samples)
        for method in methods.values():
            method.check(split.problem)
        folder.mkdir(parents=True, exist_ok=True)
        known, found = data.fingerprint(), {}
        each = self.sizes + self.seeds - 1
        with Progress("optimiser gap", len(methods) * each, show=progress) as bar:
            for number, (name, method) in enumerate(methods.items()):
                bar.say(name)
                one = _One(self, name, method, split, folder, known)
                found[name] = one.tuned(lambda: bar.advance(1))
                say(f"{number + 1} of {len(methods)}, {_said(name, found[name], split)}")
        return found

    def key(self, name: str, lr: float | None, seed: int, known: str) -> str:
        """A name that changes with whatever a training depends on."""
        samples = self.samples if name == LIMIT else None
        depends = repr((
            __version__, self.network, self.learner, self.width, self.held_out, samples, self.seed,
            name, None if lr is None else f"{lr:.6g}", seed, known,
        ))  # fmt: skip
        return hashlib.sha256(depends.encode()).hexdigest()[:16]


class _One:
    """One method while its step size is chosen and its seeds are trained."""

    def __init__(
        self, study: OptimiserGap, name: str, method: AbstractMethod, split: Split, folder: Path,
        known: str,
    ):  # fmt: skip
        self._study, self._name, self._method, self._split = study, name, method, split
        self._folder, self._known = folder, known
        self._training: Training | None = None

    def tuned(self, advance: Callable[[], None]) -> Tuned:
        first = self._method.first_step(self._split.problem)
        tried = self._tried(first, advance)
        for best in sorted(tried, key=lambda one: one.validation_loss):
            if best.diverged:
                break
            others = []
            for seed in range(1, self._study.seeds):
                others.append(self._outcome(best.lr, seed))
                advance()
            if not any(one.diverged for one in others):
                return Tuned(tuple(tried), (best, *others))
        raise Diverged(
            f"{self._name} diverged at every step size from {tried[0].lr:.3g} to "
            f"{tried[-1].lr:.3g}, of one seed at least: give a smaller lr to begin with."
        )

    def _tried(self, first: float | None, advance: Callable[[], None]) -> list[Outcome]:
        if first is None:
            return [self._outcome(None, 0)]
        low = -(self._study.sizes // 2)
        wanted = list(range(low, low + self._study.sizes))
        found: dict[int, Outcome] = {}
        while wanted and len(found) < MOST:
            for power in wanted:
                found[power] = self._outcome(first * FACTOR**power, 0)
                advance()
            best = min(found, key=lambda power: found[power].validation_loss)
            ends = {min(found): -1, max(found): 1}
            wanted = [best + ends[best]] if best in ends else []
        return [found[power] for power in sorted(found)]

    def _outcome(self, lr: float | None, seed: int) -> Outcome:
        """Read, or trained and kept."""
        key = self._study.key(self._name, lr, seed, self._known)
        path = self._folder / f"{key}.outcome"
        if path.exists():
            try:
                return store.load(path, OUTCOME, AGAIN)
            except ValueError:
                pass  # cut off or of another version: train it again
        found = self._train(lr, seed)
        store.save(path, found, OUTCOME)
        return found

    def _train(self, lr: float | None, seed: int) -> Outcome:
        began = time.perf_counter()
        if self._training is None:
            self._training = self._method.on(self._split.problem)
        try:
            trained = self._training(lr, seed)
        except Diverged:
            spent, none = time.perf_counter() - began, np.zeros(0)
            return Outcome(lr, seed, none, none, math.inf, math.inf, math.nan, spent)
        held_out, test = self._split.losses(trained.outputs)
        return Outcome(
            lr, seed, trained.steps, np.asarray(trained.train_loss), held_out, test,
            self._split.score(trained.outputs), time.perf_counter() - began, trained.notes,
        )  # fmt: skip


def _said(name: str, tuned: Tuned, split: Split) -> str:
    rate = tuned.best[0].lr
    at = "" if rate is None else f" at step size {rate:.3g} of {len(tuned.tried)} tried"
    loss = np.mean([one.last_loss for one in tuned.best])
    score = np.mean([one.test_score for one in tuned.best])
    shown = f"{score:.2%} right" if split.problem.task == "classification" else f"R² {score:.3f}"
    return f"{name}{at}: training loss {loss:.3g}, {shown} ({tuned.seconds:.0f} s)."
