"""The loop over steps of an Adam limit: both halves side by side, logged and checkpointed."""

import time
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from widthwise.learner import Entrywise
from widthwise.limits.adam.blocks import Batch
from widthwise.limits.adam.half import Half, Kept, Moved
from widthwise.limits.adam.pace import Left, pace_of
from widthwise.limits.base import Work
from widthwise.limits.descent import loss_slope
from widthwise.problem import Problem, batches, check_growth, logged_steps, loss_value

SECONDS = 60.0  # between two checkpoints
WHAT = "The Adam limit"


class Logged(NamedTuple):
    """A logged step: what both halves have taken from the training rows' outputs, and how."""

    step: int
    taken: Float[np.ndarray, "h n k"]
    moved: tuple[Moved, ...]


class _Done(NamedTuple):
    """What a training has done so far, in plain arrays: a checkpoint."""

    step: int
    taken: np.ndarray  # from the outputs of the batch that comes next
    kept: tuple[Kept, ...]
    log: tuple[Logged, ...]


@final
class Training:
    """Trains halves from one initial function; `name` tells it from others in a checkpoint."""

    def __init__(
        self, halves: tuple[Half, ...], problem: Problem, learner: Entrywise, left: Left,
        start: Float[np.ndarray, "n k"], order: int, logs: int, work: Work, name: str,
    ):  # fmt: skip
        self._halves, self._problem, self._learner = halves, problem, learner
        self._start, self._left, self._work, self._name = start, left, work, name
        self._times = logged_steps(learner.steps, logs)
        self._whole = Batch.of(problem.x_train)
        self._chosen = batches(len(problem.x_train), learner.steps, learner.batch_size, order)
        self._factors = learner.schedule.factors(learner.steps)
        self._log: list[Logged] = []

    def run(self) -> tuple[Logged, ...]:
        """What was logged, from step 0 to the last.

        Raises `Diverged` where the loss leaves the finite numbers, or grows far above its start.
        """
        step, taken = self._resumed() or self._begun()
        written = time.monotonic()
        # particles run in threads, each with products of its own
        with threadpool_limits(1, "blas"), np.errstate(over="ignore", invalid="ignore"):
            while step < self._learner.steps:
                taken = self._step(step, taken)
                step += 1
                if step in self._times:
                    self._write(step, taken)
                self._work.advance(1 / self._learner.steps)
                if time.monotonic() - written > SECONDS:
                    self._keep(step, taken)
                    written = time.monotonic()
        return tuple(self._log)

    def _begun(self) -> tuple[int, np.ndarray]:
        zero = np.zeros((len(self._halves), *self._start.shape))
        self._write(0, zero)
        return 0, zero[:, self._batch(0).rows]

    def _batch(self, step: int) -> Batch:
        if self._chosen is None or step == len(self._chosen):
            return self._whole
        return Batch.of(self._problem.x_train, self._chosen[step])

    def _step(self, step: int, taken: np.ndarray) -> np.ndarray:
        """From what is taken from the batch's outputs to what is from those of the next batch."""
        learner, batch = self._learner, self._batch(step)
        assert learner.lr is not None
        lr = learner.lr * float(self._factors[step])
        pace = pace_of(learner, lr, step)
        targets, found = self._problem.y_train[batch.rows], []
        for half, own in zip(self._halves, taken, strict=True):
            slope = loss_slope(self._outputs(step, batch, own), targets, learner.loss)
            chi = self._left.change[step] * slope / len(slope)
            found.append(half.visit(pace, batch, chi, self._batch(step + 1)))
        return np.stack(found)

    def _outputs(self, step: int, batch: Batch, taken) -> Float[np.ndarray, "b k"]:
        function, change = (part[step] for part in self._left)
        return function * self._start[batch.rows] - change * taken

    def _write(self, step: int, taken: np.ndarray) -> None:
        if taken.shape[1:] != self._start.shape:
            taken = np.stack([half.outputs(self._whole) for half in self._halves])
        y, loss = self._problem.y_train, self._learner.loss
        out = self._outputs(step, self._whole, taken.mean(axis=0))
        lost, first = (float(loss_value(own, y, loss)) for own in (out, self._start))
        check_growth(WHAT, step, lost, first)
        self._log.append(Logged(step, taken, tuple(half.moved() for half in self._halves)))

    def _keep(self, step: int, taken: np.ndarray) -> None:
        kept = tuple(half.kept for half in self._halves)
        self._work.keep(self._name, _Done(step, taken, kept, tuple(self._log)))

    def _resumed(self) -> tuple[int, np.ndarray] | None:
        done = self._work.kept(self._name)
        if done is None:
            return None
        for half, kept in zip(self._halves, done.kept, strict=True):
            half.kept = kept
        self._log = list(done.log)
        self._work.advance(done.step / self._learner.steps)
        return done.step, done.taken
