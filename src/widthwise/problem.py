"""What a member trains on: arrays, targets coded for a loss, the order of the rows, the log."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from widthwise.learner import LossName
from widthwise.resources import ALL_OF_IT, Resources

PROBES = 64  # rows at which layer kernels are logged


class Diverged(ValueError):
    """Training left the finite numbers: the step size is past what is stable."""


GROWTH = 1e4  # of the training loss, past which a run is called diverged


def diverged(what: str, step: int) -> Diverged:
    """What training says of a step size that is too large."""
    return Diverged(
        f"{what} left the finite numbers by step {step}: lower lr, or leave it out for the largest "
        "stable step times a safety factor, and lower that one if it was out."
    )


def check_growth(what: str, step: int, lost: float, first: float) -> None:
    """Raises Diverged for a training loss that is no number, or far above the first one."""
    if not lost <= GROWTH * max(first, 1.0):
        raise diverged(what, step)


class Problem(NamedTuple):
    """Training and probe rows with their targets as the loss reads them.

    Squared error on classes fits one-hot minus 1 / k; `offset` is what a prediction adds back.
    """

    x_train: Float[np.ndarray, "n d"]
    y_train: Float[np.ndarray, "n k"]
    x_test: Float[np.ndarray, "m d"]
    y_test: Float[np.ndarray, "m k"]
    offset: float
    task: str  # "classification" or "regression"
    resources: Resources = ALL_OF_IT

    @property
    def probes(self) -> Float[np.ndarray, "q d"]:
        """The rows at which layer kernels are logged: test rows, or training rows without any."""
        return (self.x_test if len(self.x_test) else self.x_train)[:PROBES]


def pose(data, loss: LossName, resources: Resources = ALL_OF_IT) -> Problem:
    """Codes the targets of a `Data` for a loss.

    Raises ValueError for cross-entropy on a regression.
    """
    if loss == "cross_entropy" and data.task != "classification":
        raise ValueError("Cross-entropy needs classes and the target is a number: use loss='mse'.")
    centred = data.task == "classification" and loss == "mse"
    offset = 1.0 / data.y_train.shape[1] if centred else 0.0
    return Problem(
        data.x_train, data.y_train - offset, data.x_test, data.y_test - offset, offset, data.task,
        resources,
    )  # fmt: skip


def batches(
    rows: int, steps: int, batch_size: int | None, seed: int
) -> Int[np.ndarray, "steps batch"] | None:
    """Which rows each step sees: shuffled passes, the same for every member. None is all rows.

    >>> batches(4, 3, 2, seed=0).shape
    (3, 2)
    """
    if batch_size is None or batch_size >= rows:
        return None
    rng = np.random.default_rng([seed, 0])
    passes = math.ceil(steps * batch_size / rows) + 1
    stream = np.concatenate([rng.permutation(rows) for _ in range(passes)])
    return stream[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def logged_steps(steps: int, count: int = 16) -> tuple[int, ...]:
    """0, `steps`, and about geometric steps between.

    >>> logged_steps(100, 5)
    (0, 1, 5, 22, 100)
    """
    inner = np.geomspace(1, steps, max(count - 1, 2))
    return tuple(sorted({0, steps, *(int(round(step)) for step in inner)}))


def loss_value(outputs, targets, loss: LossName) -> Any:
    """Mean over rows of half the squared error summed over outputs, or of the cross-entropy; NaN
    where there are none."""
    outputs, targets = np.asarray(outputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if not outputs.shape[-2]:
        return np.full(outputs.shape[:-2], np.nan)[()]
    if loss == "mse":
        return 0.5 * np.mean(np.sum((outputs - targets) ** 2, axis=-1), axis=-1)
    top = outputs.max(axis=-1, keepdims=True)
    normal = np.log(np.exp(outputs - top).sum(axis=-1)) + top[..., 0]
    return np.mean(normal - np.sum(outputs * targets, axis=-1), axis=-1)


def curvature(loss: LossName) -> float:
    """The largest second derivative of a row's loss in its outputs."""
    return 1.0 if loss == "mse" else 0.5


def probabilities(outputs: Float[np.ndarray, "n k"], loss: LossName) -> Float[np.ndarray, "n k"]:
    """Class probabilities: softmax of logits, or the nearest point of the simplex to least-squares
    scores, which estimate probabilities already.

    >>> probabilities(np.array([[1.2, -0.1, 0.1]]), "mse").round(2).tolist()
    [[1.0, 0.0, 0.0]]
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if loss == "cross_entropy":
        grown = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return grown / grown.sum(axis=1, keepdims=True)
    ordered = -np.sort(-outputs, axis=1)
    count = np.arange(1, outputs.shape[1] + 1)
    excess = (np.cumsum(ordered, axis=1) - 1) / count
    used = np.sum(ordered > excess, axis=1)
    threshold = excess[np.arange(len(outputs)), used - 1]
    found = np.maximum(outputs - threshold[:, None], 0.0)
    return found / found.sum(axis=1, keepdims=True)
