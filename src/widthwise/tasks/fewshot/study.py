"""Members of all widths, infinity and kernels among them, trained on the same tasks."""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from widthwise import __version__, store
from widthwise.progress import Progress
from widthwise.tasks.fewshot.base import AbstractMetaLearner
from widthwise.tasks.fewshot.drawings import Drawings
from widthwise.tasks.fewshot.episodes import Part, split
from widthwise.tasks.fewshot.kernel import BIAS, META_LR, SIZE, LinearKernel, ReluKernel
from widthwise.tasks.fewshot.linear import LinearNetwork
from widthwise.tasks.fewshot.setting import FewShot, numbers_for
from widthwise.tasks.fewshot.train import AGAIN, RUN, MetaRun, meta_train

KERNELS = ("linear", "relu-gp", "relu-ntk")


class Member(NamedTuple):
    """One row of the result: a network of a width, or a kernel."""

    name: str
    width: float | None
    kernel: str | None


@dataclasses.dataclass(frozen=True)
class Study:
    """Which members learn, how often, and from what.

    >>> [member.name for member in Study(widths=(2, math.inf), kernels=("linear",)).members]
    ['width 2', 'width inf', 'kernel linear']

    Args:
        widths: of the linear network; positive whole numbers, and inf.
        kernels: of "linear", "relu-gp" and "relu-ntk".
        seeds: how often each member is trained; a seed draws tasks and initial weights.
        setting: of the tasks and the training.
    """

    widths: tuple[float, ...] = (2, 8, 32, 128, 512, math.inf)
    kernels: tuple[str, ...] = KERNELS
    seeds: int = 3
    setting: FewShot = FewShot()

    def __post_init__(self):
        for width in self.widths:
            if not (width == math.inf or (width >= 1 and width == int(width))):
                raise ValueError(f"width is {width}: give positive whole numbers, or inf.")
        for kernel in self.kernels:
            if kernel not in KERNELS:
                raise ValueError(f"kernel is {kernel!r}: choose among {', '.join(KERNELS)}.")
        if not self.members:
            raise ValueError("There are no widths and no kernels: give at least one of them.")
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}: give at least 1.")

    @property
    def members(self) -> tuple[Member, ...]:
        networks = [Member(f"width {width:g}", width, None) for width in sorted(set(self.widths))]
        kernels = [Member(f"kernel {name}", None, name) for name in dict.fromkeys(self.kernels)]
        return (*networks, *kernels)

    def run(
        self,
        drawings: Drawings,
        folder: Path,
        *,
        say: Callable[[str], None] = lambda sentence: None,
        progress: bool = False,
    ) -> dict[Member, tuple[MetaRun, ...]]:
        """Trains every member with every seed.

        Finished runs are kept in the folder, and so is where a run stood after its last epoch: the
        same study goes on from there, whatever stopped it, and ends with the same numbers.

        Raises DataError for too few drawings, MemoryError for kernels that do not fit.
        """
        parts = split(drawings, self.setting)
        folder.mkdir(parents=True, exist_ok=True)
        known = hashlib.sha256(drawings.ink.tobytes() + drawings.first.tobytes()).hexdigest()
        batches = self.setting.epochs * self.setting.batches
        found: dict[Member, tuple[MetaRun, ...]] = {}
        with Progress("few-shot", len(self.members) * self.seeds * batches, show=progress) as bar:
            for member in self.members:
                learner: AbstractMetaLearner | None = None
                runs = []
                for seed in range(self.seeds):
                    bar.say(f"{member.name}, seed {seed}")
                    path = folder / f"{self._key(member, seed, known)}.fewshot"
                    if path.exists():
                        bar.advance(batches)
                        runs.append(store.load(path, RUN, AGAIN))
                        continue
                    learner = _learner(member, parts) if learner is None else learner
                    runs.append(self._one(member, learner, parts, seed, path, bar.advance))
                found[member] = tuple(runs)
                say(_said(member, runs))
        return found

    def _one(
        self, member: Member, learner: AbstractMetaLearner, parts: tuple[Part, Part, Part],
        seed: int, path: Path, advance: Callable[[float], None],
    ) -> MetaRun:  # fmt: skip
        checkpoint = path.with_suffix(".part")
        run = meta_train(
            learner, parts, self.setting, name=member.name, seed=seed, checkpoint=checkpoint,
            advance=advance,
        )  # fmt: skip
        store.save(path, run, RUN)
        checkpoint.unlink(missing_ok=True)
        return run

    def _key(self, member: Member, seed: int, known: str) -> str:
        """A name that changes with whatever a run depends on."""
        numbers = (META_LR, SIZE, BIAS) if member.width is None else numbers_for(member.width)
        depends = repr((__version__, member, numbers, self.setting, seed, known))
        digest = hashlib.sha256(depends.encode()).hexdigest()[:12]
        return f"{digest}-{member.name.replace(' ', '-')}-seed-{seed}"


def _learner(member: Member, parts: tuple[Part, Part, Part]) -> AbstractMetaLearner:
    train, validation, _ = parts
    if member.width is not None:
        return LinearNetwork(member.width, numbers_for(member.width))
    if member.kernel == "linear":
        return LinearKernel(train)
    return ReluKernel.of(train, (train, validation), "gp" if member.kernel == "relu-gp" else "ntk")


def _said(member: Member, runs: list[MetaRun]) -> str:
    right = ", ".join(f"{100 * run.accuracy:.2f}" for run in runs)
    spent = sum(sum(run.seconds) for run in runs)
    return f"{member.name}: {right} % right on new characters, by seed ({spent:.0f} s)."
