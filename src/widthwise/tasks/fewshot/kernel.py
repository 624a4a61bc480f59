"""Kernels that learn to learn: networks that are linear in their weights, in function space."""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from widthwise.tasks.fewshot.adapt import adapt_values, loss_slopes, losses
from widthwise.tasks.fewshot.base import AbstractMetaLearner, Stepped, clipped
from widthwise.tasks.fewshot.episodes import Episodes, Part, Pixels
from widthwise.tasks.fewshot.setting import FewShot
from widthwise.tasks.fewshot.table import KernelTable

# Labels are arbitrary, so no initial function helps: steps that learn one only add noise, and small
# ones do best. Inner steps need a kernel large enough to fit a task in 20 of them.
META_LR = 0.01
SIZE = 10.0  # the kernel's mean over the training drawings' diagonal
BIAS = 1.0  # the linear kernel's bias feature


class _AbstractKernelLearner(AbstractMetaLearner):
    """f(x) = sum over drawings of K(x, drawing) C. Adapting adds coefficients at a task's drawings
    to learn from, which are dropped after it; an outer step adds those at its queries, where the
    gradient of first order lives. K is scaled to a mean diagonal of SIZE over training drawings."""

    @abc.abstractmethod
    def gram(self, x1: Float[np.ndarray, "t p d"], x2: Float[np.ndarray, "t m d"]) -> np.ndarray:
        """The kernel between drawings of the same task."""

    @abc.abstractmethod
    def values(
        self, state: Any, part: Part, rows: Int[np.ndarray, "t p"], turns: Int[np.ndarray, "t p"]
    ) -> Float[np.ndarray, "t p k"]:
        """The learned initial function at drawings."""

    @abc.abstractmethod
    def added(
        self, state: Any, part: Part, episodes: Episodes, coefficients: Float[np.ndarray, "n k"]
    ) -> Any:
        """The state with coefficients added at the queries of tasks."""

    @abc.abstractmethod
    def everywhere(self, state: Any, part: Part) -> Float[np.ndarray, "m o k"]:
        """The same at all drawings of a part, in all its orientations."""

    def step(self, state, part, episodes, setting):
        pixels = part.pixels(episodes)
        at_support, at_queries = (
            self.values(state, part, x.reshape(len(x), -1), episodes.turns_of(x))
            for x in (episodes.support, episodes.queries)
        )
        out = self._adapted(at_support, at_queries, pixels, setting, setting.inner_steps)
        slope = loss_slopes(out, pixels.query_labels).reshape(-1, setting.way)
        queries = pixels.queries.reshape(1, len(slope), -1)
        squared = float(np.vdot(slope, self.gram(queries, queries)[0] @ slope))
        rate = META_LR * clipped(math.sqrt(max(squared, 0.0)), setting.clip)
        moved = self.added(state, part, episodes, -rate * slope)
        return Stepped(moved, float(losses(out, pixels.query_labels).mean()))

    def outputs(self, state, part, episodes, setting, steps):
        known, found = self.everywhere(state, part), []
        for few in episodes.in_chunks():
            at_support, at_queries = (
                known[part.places[x].reshape(len(x), -1), few.turns_of(x)]
                for x in (few.support, few.queries)
            )
            pixels = part.pixels(few)
            found.append(self._adapted(at_support, at_queries, pixels, setting, steps))
        return np.concatenate(found)

    def _adapted(
        self, at_support: Float[np.ndarray, "t m k"], at_queries: Float[np.ndarray, "t p k"],
        pixels: Pixels, setting: FewShot, steps: int,
    ) -> Float[np.ndarray, "t p k"]:  # fmt: skip
        inner, cross = (self.gram(x, pixels.support) for x in (pixels.support, pixels.queries))
        return adapt_values(
            at_support, at_queries, inner, cross, pixels.support_labels, setting.inner_lr, steps
        )


@dataclasses.dataclass(frozen=True, eq=False)
class LinearKernel(_AbstractKernelLearner):
    """K = <x, x'> + 1: the tangent kernel and the Gaussian process of the linear network alike.

    Its function is linear, so the state is its weights and no kernel matrix is ever made.
    """

    source: ClassVar[str] = "yang2021feature, section 7.2 and Corollary 3.9"
    known: Part

    def _scale(self) -> float:
        return (float(self.known.squared_sizes.mean()) + BIAS**2) / SIZE

    def initial(self, part, setting, seed, start=0):
        return np.zeros((part.dimension + 1, setting.way))

    def gram(self, x1, x2):
        return (x1 @ x2.swapaxes(1, 2) + BIAS**2) / self._scale()

    def values(self, state, part, rows, turns):
        x = part.drawings.pixels(rows, turns)
        return (x @ state[:-1] + BIAS * state[-1]) / math.sqrt(self._scale())

    def everywhere(self, state, part):
        found = [x @ state[:-1] + BIAS * state[-1] for x in part.every_turn()]
        return np.stack(found, axis=1) / math.sqrt(self._scale())

    def added(self, state, part, episodes, coefficients):
        x = part.pixels(episodes).queries.reshape(len(coefficients), -1)
        x = np.concatenate([x, np.full((len(x), 1), BIAS)], axis=1)
        return state + x.T @ coefficients / math.sqrt(self._scale())


def relu_kernel(
    inner: np.ndarray, size1: np.ndarray, size2: np.ndarray, kind: Literal["gp", "ntk"]
) -> np.ndarray:
    """The Gaussian process, or tangent kernel, of a ReLU network with one hidden layer, no bias.

    >>> relu_kernel(np.array([1.0]), np.array([1.0]), np.array([1.0]), "gp").tolist()
    [0.5]

    Args:
        inner: inner products; size1, size2: the inputs' norms, over 0 where the kernel is.
    """
    scale = size1 * size2
    angle = np.clip(inner / np.maximum(scale, np.finfo(scale.dtype).tiny), -1.0, 1.0)
    turned = (np.pi - np.arccos(angle)) / (2 * np.pi)
    found = scale * (np.sqrt(1.0 - angle * angle) / (2 * np.pi) + turned * angle)
    return found if kind == "gp" else found + turned * inner


@dataclasses.dataclass(frozen=True, eq=False)
class ReluKernel(_AbstractKernelLearner):
    """The Gaussian process ("gp") or tangent kernel ("ntk") of a ReLU network, one hidden layer.

    The state is one coefficient a training drawing, turn and output, so that memory does not grow
    with the steps; kernels of training and validation drawings with training drawings are kept in
    float32. Queries adapt in float64.
    """

    source: ClassVar[str] = "yang2021feature, section 7.2; cho2009, eq. (6)"
    known: Part
    kind: Literal["gp", "ntk"]
    table: KernelTable

    @classmethod
    def of(cls, known: Part, kept: tuple[Part, ...], kind: Literal["gp", "ntk"]) -> "ReluKernel":
        """Computes the kernels that are kept; MemoryError where they do not fit."""
        diagonal = 0.5 if kind == "gp" else 1.0  # of inputs of norm one
        scale = diagonal * float(known.squared_sizes.mean()) / SIZE

        def kernel(inner, size1, size2):
            return relu_kernel(inner, size1, size2, kind) / scale

        return cls(known, kind, KernelTable.of(known, kept, kernel))

    def initial(self, part, setting, seed, start=0):
        return np.zeros((len(part.rows), part.orientations, setting.way))

    def gram(self, x1, x2):
        sizes = (np.sqrt((x * x).sum(axis=2)) for x in (x1, x2))
        size1, size2 = sizes
        return self.table.kernel(x1 @ x2.swapaxes(1, 2), size1[:, :, None], size2[:, None, :])

    def values(self, state, part, rows, turns):
        return self.table.values(state, part, rows, turns)

    def everywhere(self, state, part):
        return self.table.everywhere(state, part)

    def added(self, state, part, episodes, coefficients):
        queries, found = episodes.queries, state.copy()
        places = part.places[queries.ravel()], episodes.turns_of(queries).ravel()
        np.add.at(found, places, coefficients)
        return found
