"""What one training of one method came to, on rows held apart for choosing and for testing."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.data import Data, DataError
from widthwise.learner import LossName
from widthwise.measure.agreement import accuracy, r_squared
from widthwise.problem import Problem, loss_value, pose


class Split(NamedTuple):
    """A problem whose test rows begin with those held out of the training rows."""

    problem: Problem
    held_out: int
    loss: LossName

    def score(self, outputs: Float[np.ndarray, "m k"]) -> float:
        """Accuracy, or R² of a regression, on the test rows."""
        targets = self.problem.y_test[self.held_out :]
        classes = self.problem.task == "classification"
        return (accuracy if classes else r_squared)(outputs[self.held_out :], targets)

    def losses(self, outputs: Float[np.ndarray, "m k"]) -> tuple[float, float]:
        """On the rows that were held out, and on the test rows."""
        at, targets = self.held_out, self.problem.y_test
        held_out = loss_value(outputs[:at], targets[:at], self.loss)
        return float(held_out), float(loss_value(outputs[at:], targets[at:], self.loss))


class Trained(NamedTuple):
    """What a method hands back: its training loss at logged steps, and its last outputs."""

    steps: Float[np.ndarray, " t"]
    train_loss: Float[np.ndarray, " t"]
    outputs: Float[np.ndarray, "m k"]  # at the rows held out and the test rows
    notes: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """One training at one step size; the losses are infinite where it diverged."""

    lr: float | None
    seed: int
    steps: Float[np.ndarray, " t"]
    train_loss: Float[np.ndarray, " t"]
    validation_loss: float
    test_loss: float
    test_score: float
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def diverged(self) -> bool:
        return math.isinf(self.validation_loss)

    @property
    def last_loss(self) -> float:
        """On the training rows, after the last step."""
        return float(self.train_loss[-1]) if len(self.train_loss) else math.inf


def split_of(data: Data, loss: LossName, held_out: int | None, seed: int) -> Split:
    """Takes rows out of the training rows, a fifth unless a number is given, drawn with the seed.

    >>> split_of(load("digits"), "mse", None, 0).held_out  # doctest: +SKIP
    288

    Raises DataError where too few rows are left to train and to choose.
    """
    rows = len(data.x_train)
    count = rows // 5 if held_out is None else held_out
    if count < 1 or rows - count < 2 or not len(data.x_test):
        raise DataError(
            f"There are {rows} training rows, {count} of them to be held out, and "
            f"{len(data.x_test)} test rows: give more rows, or hold out fewer."
        )
    order = np.random.default_rng([seed, 1]).permutation(rows)
    kept, out = np.sort(order[count:]), np.sort(order[:count])
    known = pose(data, loss)
    problem = known._replace(
        x_train=known.x_train[kept], y_train=known.y_train[kept],
        x_test=np.concatenate([known.x_train[out], known.x_test]),
        y_test=np.concatenate([known.y_train[out], known.y_test]),
    )  # fmt: skip
    return Split(problem, count, loss)
