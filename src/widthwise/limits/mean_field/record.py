"""What a mean-field training writes down, and the state that it leaves."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.learner import LossName
from widthwise.limits.mean_field.particles import Layers, Particles
from widthwise.problem import Problem, check_growth, loss_value
from widthwise.run import AbstractState, Prediction, check_columns

WHAT = "The mean-field limit"  # as messages call it


class Solution(NamedTuple):
    """One half: outputs and kernels at the logged steps, and the network that is left."""

    train: Float[np.ndarray, "t n k"]
    test: Float[np.ndarray, "t m k"]
    kernels: dict[str, Float[np.ndarray, "t q q"]]
    layers: tuple[Layers, Layers]
    ranks: tuple[tuple[int, int], ...]
    left_out: float


class Log:
    """Collects outputs and kernels of one half."""

    def __init__(self, problem: Problem, loss: LossName, particles: Particles):
        self._problem, self._particles = problem, particles
        self._loss: LossName = loss
        self._train: list[np.ndarray] = []
        self._test: list[np.ndarray] = []
        self._kernels: list[dict[str, np.ndarray]] = []
        self._first = 1.0

    def write(self, step: int) -> None:
        problem, layers = self._problem, self._particles.layers()
        train = outputs(layers, problem.x_train)
        lost = loss_value(train, problem.y_train, self._loss)
        if not self._train:
            self._first = float(lost)
        check_growth(WHAT, step, lost, self._first)
        self._train.append(train)
        self._test.append(outputs(layers, problem.x_test))
        found, now = {}, layers[0]
        features = now.features(problem.probes, together=True)
        for i, (site, at) in enumerate(zip(now.sites, features, strict=True)):
            weight = now.weight if i + 1 == len(features) else now.links[i + 1].weight
            if site.name is not None:
                found[site.name] = (at @ at.T * weight).astype(np.float64)
        self._kernels.append(found)

    def solution(self) -> Solution:
        kernels = {name: np.stack([x[name] for x in self._kernels]) for name in self._kernels[0]}
        now, drawn = self._particles.layers()
        kept = tuple(
            layers._replace(links=tuple(x._replace(spares=x.spares[:1]) for x in layers.links))
            for layers in (now, drawn)
        )
        return Solution(
            np.stack(self._train), np.stack(self._test), kernels, (kept[0], kept[1]),
            self._particles.ranks, self._particles.left_out,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class MeanFieldState(AbstractState):
    """The particles of every half, trained and as they were drawn."""

    halves: tuple[tuple[Layers, Layers], ...]

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        check_columns(x, self.halves[0][0].links[0].basis.shape[1])
        value = np.mean([outputs(layers, x) for layers in self.halves], axis=0)
        return Prediction(value, None, "the limit, which forgets the initial weights")


def outputs(layers: tuple[Layers, Layers], x) -> Float[np.ndarray, "m k"]:
    """The limit starts from the zero function; what samples make of it is taken off."""
    now, drawn = layers
    return now.outputs(x) - drawn.outputs(x)
