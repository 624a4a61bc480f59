"""The linear network with one hidden layer, at every width and at infinity: one engine."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.tasks.fewshot.adapt import Adapted, Grams, adapt, loss_slopes, losses
from widthwise.tasks.fewshot.base import AbstractMetaLearner, Stepped, clipped
from widthwise.tasks.fewshot.episodes import STARTS, Part, Pixels
from widthwise.tasks.fewshot.setting import FewShot, Numbers


class Weights(NamedTuple):
    """f(x) = readout (hidden^T x + beta bias); `beta` is fixed, all else is trained."""

    hidden: Float[np.ndarray, "d n"]
    bias: Float[np.ndarray, " n"]
    readout: Float[np.ndarray, "k n"]


def initial_weights(
    width: float, numbers: Numbers, d: int, k: int, rng: np.random.Generator
) -> Weights:
    """Random weights of one width, or the diagonal ones of its limit, in min(width, d + k) units.

    >>> numbers = Numbers(0.1, 1.0, 0.5, 1.0)
    >>> initial_weights(math.inf, numbers, 1, 1, np.random.default_rng(0)).hidden.tolist()
    [[1.0, 0.0]]

    Training moves weights within the span of the d + k initial vectors (inputs of the hidden layer,
    rows of the readout), so a network of more units than that is, exactly, one of d + k: its
    vectors in an orthonormal basis of their span, by QR. At infinite width they are orthogonal.
    """
    size = d + k
    if width == math.inf:
        vectors = np.eye(size)
    else:
        vectors = rng.standard_normal((int(width), size)) / math.sqrt(width)
        vectors = np.asarray(np.linalg.qr(vectors, mode="r")) if width > size else vectors
    hidden = np.ascontiguousarray(vectors[:, :d].T) * numbers.input_size
    readout = np.ascontiguousarray(vectors[:, d:].T) * numbers.readout_size
    return Weights(hidden, np.zeros(hidden.shape[1]), readout)


class _Seen(NamedTuple):
    """Tasks as a network sees them."""

    features: Float[np.ndarray, "t m n"]  # hidden, of drawings to learn from
    query_features: Float[np.ndarray, "t p n"]
    grams: Grams


@dataclasses.dataclass(frozen=True)
class LinearNetwork(AbstractMetaLearner):
    """First-order MAML of V (U x + beta b), exact at every width.

    >>> LinearNetwork(math.inf, Numbers(0.1, 1.0, 0.03, 1.0)).width
    inf

    A meta-batch costs 2 (drawings + queries) d min(width, d + k) operations: the hidden features of
    all its drawings, and the update by its queries; adapted weights are never made.

    Args:
        width: hidden units, or inf.
        numbers: step size and sizes of initial weights.
    """

    source: ClassVar[str] = "yang2021feature, sections 6 and 7.2; finn2017, section 5.2"
    width: float
    numbers: Numbers

    def initial(self, part: Part, setting: FewShot, seed: int, start: int = 0) -> Weights:
        rng = np.random.default_rng([STARTS, seed, start])
        return initial_weights(self.width, self.numbers, part.dimension, setting.way, rng)

    def step(self, state, part, episodes, setting):
        pixels = part.pixels(episodes)
        seen = self._see(state, pixels)
        found = self._adapt(seen.grams, pixels, setting, setting.inner_steps)
        out = found.outputs(seen.grams.query_inputs, seen.grams.query_hidden, seen.grams.span)
        slope = loss_slopes(out, pixels.query_labels)
        gradient = self._gradient(state, pixels, seen, found, slope)
        norm = math.sqrt(sum(float(np.vdot(part, part)) for part in gradient))
        rate = self.numbers.meta_lr * clipped(norm, setting.clip)
        moved = Weights(*(w - rate * g for w, g in zip(state, gradient, strict=True)))
        return Stepped(moved, float(losses(out, pixels.query_labels).mean()))

    def outputs(self, state, part, episodes, setting, steps):
        out = []
        for few in episodes.in_chunks():
            pixels = part.pixels(few)
            grams = self._see(state, pixels).grams
            found = self._adapt(grams, pixels, setting, steps)
            out.append(found.outputs(grams.query_inputs, grams.query_hidden, grams.span))
        return np.concatenate(out)

    def _adapt(self, grams: Grams, pixels: Pixels, setting: FewShot, steps: int) -> Adapted:
        return adapt(grams, pixels.support_labels, setting.way, setting.inner_lr, steps)

    def _see(self, state: Weights, pixels: Pixels) -> _Seen:
        count, m, d = pixels.support.shape
        drawings = np.concatenate([pixels.support, pixels.queries], axis=1)
        hidden = drawings.reshape(-1, d) @ state.hidden + self.numbers.bias * state.bias
        hidden = hidden.reshape(count, -1, hidden.shape[1])
        features, queries = hidden[:, :m], hidden[:, m:]
        out = hidden @ state.readout.T
        inputs = drawings @ pixels.support.swapaxes(1, 2) + self.numbers.bias**2
        vectors = np.concatenate([out, hidden @ features.swapaxes(1, 2)], axis=2)
        k = len(state.readout)
        of_readout = np.broadcast_to(state.readout @ state.readout.T, (count, k, k))
        readout = np.concatenate([of_readout, out[:, :m].swapaxes(1, 2)], axis=2)
        span = np.concatenate([readout, vectors[:, :m]], axis=1)
        grams = Grams(inputs[:, :m], inputs[:, m:], span, vectors[:, :m], vectors[:, m:])
        return _Seen(features, queries, grams)

    def _gradient(
        self, state: Weights, pixels: Pixels, seen: _Seen, found: Adapted,
        slope: Float[np.ndarray, "t p k"],
    ) -> Weights:  # fmt: skip
        """Summed over tasks, at their adapted weights, which stand in coordinates of each Z."""
        k, n = state.readout.shape
        d = pixels.queries.shape[2]
        back = slope @ found.readout  # of the hidden vectors of queries, along Z
        back = (back[..., :k] @ state.readout + back[..., k:] @ seen.features).reshape(-1, n)
        grown = slope.swapaxes(1, 2) @ (seen.grams.query_inputs @ found.hidden)  # (t, k, z)
        readout = slope.reshape(-1, k).T @ seen.query_features.reshape(-1, n)
        readout += grown[..., :k].sum(axis=0) @ state.readout
        readout += grown[..., k:].swapaxes(0, 1).reshape(k, -1) @ seen.features.reshape(-1, n)
        bias = self.numbers.bias * back.sum(axis=0)
        return Weights(pixels.queries.reshape(-1, d).T @ back, bias, readout)
