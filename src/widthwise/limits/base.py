"""What every limit is: settings, then kernels of a problem, then a trained state."""

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from widthwise import settings, store
from widthwise.learner import AbstractLearner
from widthwise.network.layer import AbstractLayer, Chain
from widthwise.problem import Problem
from widthwise.run import AbstractState, Trajectory
from widthwise.scaling import AbstractScaling


class EmptyCell(ValueError):
    """A cell of the table whose limit cannot be computed (yet): the message names it."""


class Elsewhere(str):
    """A refusal that only says that another limit is for this: told where no limit says more."""


class Work(NamedTuple):
    """How a long training keeps what it has done, and tells of it."""

    checkpoint: Path | None = None  # a file of its own; None keeps nothing
    advance: Callable[[float], None] = lambda share: None  # called with the share done since then

    def keep(self, name: str, done: Any) -> None:
        """Writes what the training of this name has done."""
        if self.checkpoint is not None:
            store.save(self.checkpoint, (name, done), "checkpoint")

    def kept(self, name: str) -> Any:
        """What was done before; None where nothing was written, or not by this training, or the
        file is cut off or of another version: it then starts again."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        try:
            found, done = store.load(self.checkpoint, "checkpoint", "start again")
        except ValueError:
            return None
        return done if found == name else None


UNKEPT = Work()
FORGOTTEN = "every initial function: none is remembered at infinite width"


class Start(NamedTuple):
    """An initial function: its values at training and probe rows, and itself for new rows."""

    train: Float[np.ndarray, "n k"]
    test: Float[np.ndarray, "m k"]
    function: Callable[[Float[np.ndarray, "m d"]], Float[np.ndarray, "m k"]]


class Trained(NamedTuple):
    """What a limit's training leaves, before the family makes a Run of it."""

    state: AbstractState
    trajectory: Trajectory
    notes: tuple[str, ...] = ()


def random_constant(network: AbstractLayer, name: str) -> str | None:
    """Why a limit that starts at the zero function is not that of a stack whose readout's bias
    starts at random; None where it starts at zero."""
    assert isinstance(network, Chain)
    if network.layers[-1].bias_variance == 0:  # type: ignore[attr-defined]
        return None
    return (
        f"{name} starts at the zero function, and the readout's bias starts at random at every "
        "width: set bias_variance=0 in Readout."
    )


class AbstractPrepared(abc.ABC):
    """A limit on one problem, its kernels computed: can be trained from many initial functions."""

    @abc.abstractmethod
    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """`start` None: the mean over initialisations, with the covariance if it is known.

        A training that takes long writes `work.checkpoint` from time to time and goes on from it.
        """


class AbstractLimit(eqx.Module):
    """Width infinity under one scaling and learner; the table finds it by its class fields."""

    source: ClassVar[str]
    regime: ClassVar[str]  # the row of the table: "lazy" or "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]]  # its column
    follows_start: ClassVar[bool] = True  # False where the limit forgets the initial function
    within_resources: ClassVar[bool] = False  # True where memory, store and cluster are heeded
    by_name: ClassVar[bool] = False  # True where the table never takes it, but `limit=` may
    network: eqx.AbstractVar[AbstractLayer]
    scaling: eqx.AbstractVar[AbstractScaling]
    learner: eqx.AbstractVar[Any]  # one of `learners`

    def __repr__(self) -> str:
        return settings.shown(self)

    @abc.abstractmethod
    def refusal(self) -> str | None:
        """Why this limit does not describe its network under its scaling and learner, in a sentence
        that names the way out; None where it does. The first of a cell without one is taken."""

    @abc.abstractmethod
    def check(self, problem: Problem) -> None:
        """Refuses what cannot be computed before anything is: called before finite members train.

        Raises EmptyCell where the limit has no answer to these settings, MemoryError where the
        problem is too large.
        """

    @abc.abstractmethod
    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Computes what all trainings share. `order` seeds the batches, `logs` counts log times."""
