"""What training leaves: a state that predicts, and the trajectory that was logged."""

import abc
import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise import store
from widthwise.learner import AbstractLearner
from widthwise.problem import probabilities
from widthwise.scaling import AbstractScaling


class Prediction(NamedTuple):
    """Values at new points; `covariance` between points, the same for every output, if known."""

    value: Float[np.ndarray, "m k"]
    covariance: Float[np.ndarray, "m m"] | None
    given: str  # what value and covariance are conditioned on

    @property
    def std(self) -> Float[np.ndarray, " m"] | None:
        if self.covariance is None:
            return None
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))


class OutputsPrediction(NamedTuple):
    """Values at new points; `covariance` between the outputs at each of them, if known."""

    value: Float[np.ndarray, "m k"]
    covariance: Float[np.ndarray, "m k k"] | None
    given: str  # what value and covariance are conditioned on

    @property
    def std(self) -> Float[np.ndarray, "m k"] | None:
        if self.covariance is None:
            return None
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=1, axis2=2), 0.0))


class AbstractState(abc.ABC):
    """Everything that prediction needs; plain arrays and values, so that it can be pickled."""

    @abc.abstractmethod
    def predict(
        self, x: Float[np.ndarray, "m d"], covariance: bool
    ) -> Prediction | OutputsPrediction:
        """Outputs in the coding of the loss (see `Problem`), without its offset."""


def check_columns(x: np.ndarray, wanted: int) -> None:
    """Raises ValueError for new rows with other columns than training had."""
    if x.shape[1] != wanted:
        raise ValueError(f"x has {x.shape[1]} columns and training had {wanted}.")


class Trajectory(NamedTuple):
    """What was logged while training; T logged times, P probe rows, k outputs."""

    steps: Float[np.ndarray, " T"]
    train_loss: Float[np.ndarray, " T"]
    test_loss: Float[np.ndarray, " T"]
    predictions: Float[np.ndarray, "T P k"]
    kernels: dict[str, Float[np.ndarray, "T q q"]]  # one a layer, at the first q probe rows


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained member: predict with it, read its trajectory, save it.

    `start` says which initial function a limit started from: None is the mean over
    initialisations, (width, seed) that finite member's own.
    """

    network: Any
    width: float
    scaling: AbstractScaling
    learner: AbstractLearner
    seed: int | None
    start: tuple[int, int] | None
    limit: str | None  # the name of the limit at width inf
    state: AbstractState
    trajectory: Trajectory
    offset: float
    task: str
    seconds: float
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        what = self.limit or f"seed {self.seed}"
        return f"Run({self.network!r}, width {self.width:g}, {self.scaling!r}, {what})"

    @property
    def loss(self) -> str:
        return getattr(self.learner, "loss", "mse")

    def predict(self, x, *, covariance: bool = False) -> Prediction | OutputsPrediction:
        """Predictions at new rows, (m, d), in the coding of the training targets.

        A finite network's posterior with several outputs knows the covariance between them at each
        row; all others that know one, the covariance between rows that every output has.

        Classes: one column each. Numbers that `data` has standardised stay so: multiply by
        `data.target_scale` and add `data.target_mean` for the target's own units.

        Raises ValueError for rows of another shape than the training rows, or not finite.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2:
            raise ValueError(f"x has shape {x.shape}: give rows of features, (m, d).")
        if not np.isfinite(x).all():
            raise ValueError("x has entries that are NaN or infinite: fill or drop them.")
        found = self.state.predict(x, covariance)
        return found._replace(value=np.asarray(found.value, dtype=np.float64) + self.offset)

    def predict_proba(self, x) -> Float[np.ndarray, "m k"]:
        """Class probabilities at new rows; ValueError for a regression."""
        if self.task != "classification":
            raise ValueError("This run fits numbers, not classes: use predict.")
        return probabilities(self.predict(x).value, self.loss)  # type: ignore[arg-type]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the run to one file, whole or not at all."""
        store.save(path, self, "run")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Run":
        """Reads a file written by `save`. As with any pickle, load only files you trust.

        Raises ValueError, in one sentence, for any other file, and for one that is damaged.
        """
        return store.load(path, "run", "train it again")
