"""The outer loop: meta-batches, validation after each epoch, the best state judged at the end."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from widthwise import store
from widthwise.problem import Diverged
from widthwise.tasks.fewshot.adapt import hits
from widthwise.tasks.fewshot.base import AbstractMetaLearner
from widthwise.tasks.fewshot.episodes import Part, labels
from widthwise.tasks.fewshot.setting import FewShot

RUN, CHECKPOINT = "few-shot run", "few-shot checkpoint"
AGAIN = "delete it, and the same command trains from the start"


@dataclasses.dataclass(frozen=True, eq=False)
class MetaRun:
    """One member, trained over tasks, and what it got right.

    Args:
        name: of the member, for example "width 32".
        seed: of its tasks and initial weights.
        state: that of the best epoch.
        losses: mean loss of each epoch's tasks, after adapting.
        validation: share of right answers on the validation tasks, after each epoch.
        accuracy, error: share of right answers on the test tasks and its standard error over them.
        seconds: spent on training and validation, and on the test.
    """

    name: str
    seed: int
    state: Any
    losses: Float[np.ndarray, " e"]
    validation: Float[np.ndarray, " e"]
    accuracy: float
    error: float
    seconds: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class _Reached:
    """Where the loop stands after an epoch; `best` is the state with the best validation, and
    `undone` counts epochs that were undone since it was found."""

    state: Any
    best: Any
    undone: int = 0
    losses: tuple[float, ...] = ()
    validation: tuple[float, ...] = ()
    seconds: float = 0.0


def meta_train(
    learner: AbstractMetaLearner,
    parts: tuple[Part, Part, Part],
    setting: FewShot,
    *,
    name: str,
    seed: int = 0,
    checkpoint: Path | None = None,
    advance: Callable[[float], None] = lambda batches: None,
) -> MetaRun:
    """Trains over tasks, keeps the state of the best epoch, and judges it on the test classes.

    The tasks follow from seed and setting alone, so all members see the same. The published step
    sizes are on the edge of what is stable: a readout that has grown too large for the inner step
    makes every task worse, and never comes back. An epoch that ends so is undone: the next one
    starts from the best state so far, or from other initial weights where that was tried. With a
    `checkpoint`, the loop writes there after each epoch and goes on from there; the result is the
    same to the last bit, on the same machine and number of threads.

    Args:
        parts: of `split`.
        advance: called with the number of meta-batches done since the last call.

    Raises `Diverged` where losses stop being finite.
    """
    train, validation, test = parts
    reached = _resumed(learner, train, setting, seed, checkpoint)
    advance(len(reached.losses) * setting.batches)
    for epoch in range(len(reached.losses), setting.epochs):
        began = time.perf_counter()
        state, losses = reached.state, []
        for batch in range(epoch * setting.batches, (epoch + 1) * setting.batches):
            episodes = train.draw(setting, setting.tasks, (seed, batch))
            state, loss = learner.step(state, train, episodes, setting)
            losses.append(loss)
            advance(1)
        if not math.isfinite(sum(losses)):
            raise Diverged(f"{name} left the finite numbers in epoch {epoch + 1}: lower inner_lr.")
        right = judge(
            learner, state, validation, setting, setting.validation_tasks, setting.inner_steps, seed
        )
        found, best, undone = float(right.mean()), reached.best, reached.undone
        if found > max(reached.validation, default=-1.0):
            best, undone = state, 0
        if ran_away(np.mean(losses), setting):
            undone += 1
            state = best if undone == 1 else learner.initial(train, setting, seed, epoch + 1)
        reached = _Reached(
            state, best, undone, (*reached.losses, float(np.mean(losses))),
            (*reached.validation, found), reached.seconds + time.perf_counter() - began,
        )  # fmt: skip
        if checkpoint is not None:
            store.save(checkpoint, reached, CHECKPOINT)
    began = time.perf_counter()
    right = judge(
        learner, reached.best, test, setting, setting.test_tasks, setting.test_steps, seed
    )
    return MetaRun(
        name, seed, reached.best, np.array(reached.losses), np.array(reached.validation),
        float(right.mean()), float(right.std(ddof=1) / math.sqrt(len(right))),
        (reached.seconds, time.perf_counter() - began),
    )  # fmt: skip


def ran_away(loss, setting: FewShot):
    """Whether an epoch's mean loss, after adapting, is worse than that of guessing."""
    return loss > math.log(setting.way)


def _resumed(learner, train: Part, setting: FewShot, seed: int, path: Path | None) -> _Reached:
    if path is not None and path.exists():
        return store.load(path, CHECKPOINT, AGAIN)
    state = learner.initial(train, setting, seed)
    return _Reached(state, state)


def judge(
    learner: AbstractMetaLearner, state: Any, part: Part, setting: FewShot, tasks: int, steps: int,
    seed: int,
) -> Float[np.ndarray, " {tasks}"]:  # fmt: skip
    """The share of right answers in each of many tasks, the same tasks for every member."""
    episodes = part.draw(setting, tasks, (seed,))
    out = learner.outputs(state, part, episodes, setting, steps)
    return hits(out, labels(setting.way, setting.queries))
