"""What learns to learn: a state that tasks move, and outputs after adapting to one."""

import abc
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.tasks.fewshot.episodes import Episodes, Part
from widthwise.tasks.fewshot.setting import FewShot


class Stepped(NamedTuple):
    """After an outer step: the next state, and the mean loss of the tasks before it."""

    state: Any
    loss: float


class AbstractMetaLearner(abc.ABC):
    """One network, or one kernel, that is trained over tasks; states are plain arrays."""

    source: ClassVar[str]

    @abc.abstractmethod
    def initial(self, part: Part, setting: FewShot, seed: int, start: int = 0) -> Any:
        """The state before training on a part's classes; another draw for another `start`."""

    @abc.abstractmethod
    def step(self, state: Any, part: Part, episodes: Episodes, setting: FewShot) -> Stepped:
        """Adapts to each task, and moves the state down their summed gradient at queries."""

    @abc.abstractmethod
    def outputs(
        self, state: Any, part: Part, episodes: Episodes, setting: FewShot, steps: int
    ) -> Float[np.ndarray, "t p k"]:
        """At the queries of tasks, after so many steps of adaptation to each."""


def clipped(norm: float, bound: float) -> float:
    """The factor that brings a gradient's norm under a bound."""
    return min(1.0, bound / norm) if norm > 0 else 1.0
