"""Adapting to a task without making the adapted weights: all of it in the span of few vectors.

A task with m drawings to learn from changes the hidden layer by m outer products and the readout
by m hidden vectors. Along the rows of Z = [V; H], the readout and the hidden features of the m
drawings, adapted weights have (k + m) coordinates, whatever the width.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Grams(NamedTuple):
    """Inner products that decide a task: of inputs (bias included), and of hidden vectors with Z.

    Args:
        inputs: of drawings to learn from.
        query_inputs: of drawings to be tested on with those to learn from.
        span: of the rows of Z, k + m.
        hidden: of the hidden features of drawings to learn from with the rows of Z.
        query_hidden: of those of drawings to be tested on.
    """

    inputs: Float[np.ndarray, "t m m"]
    query_inputs: Float[np.ndarray, "t p m"]
    span: Float[np.ndarray, "t z z"]
    hidden: Float[np.ndarray, "t m z"]
    query_hidden: Float[np.ndarray, "t p z"]


class Adapted(NamedTuple):
    """Coordinates along Z: rows of the readout, and what the m drawings add to the hidden layer.

    The hidden vector of an input with inner products g (with the m drawings) is what it was, plus
    g hidden Z.
    """

    readout: Float[np.ndarray, "t k z"]
    hidden: Float[np.ndarray, "t m z"]

    def outputs(
        self, inputs: Float[np.ndarray, "t p m"], vectors: Float[np.ndarray, "t p z"],
        span: Float[np.ndarray, "t z z"],
    ) -> Float[np.ndarray, "t p k"]:  # fmt: skip
        """Of inputs, from their inner products with the m drawings and with Z."""
        return (vectors + inputs @ (self.hidden @ span)) @ self.readout.swapaxes(1, 2)


def adapt(
    grams: Grams, labels: Int[np.ndarray, " m"], outputs: int, lr: float, steps: int
) -> Adapted:
    """Steps of gradient descent on the mean cross-entropy of the drawings to learn from.

    >>> eye = np.eye(2)[None]
    >>> grams = Grams(eye, eye, np.eye(4)[None], np.eye(2, 4, 2)[None], np.eye(2, 4, 2)[None])
    >>> found = adapt(grams, np.array([0, 1]), 2, lr=0.1, steps=1)
    >>> found.outputs(grams.inputs, grams.hidden, grams.span).argmax(axis=2).tolist()
    [[0, 1]]
    """
    count, m, z = grams.hidden.shape
    first = np.broadcast_to(np.eye(outputs, z), (count, outputs, z))
    along = np.eye(m, z, outputs)  # where the m drawings' own hidden vectors stand in Z
    found = Adapted(first, np.zeros((count, m, z)))
    for _ in range(steps):
        out = found.outputs(grams.inputs, grams.hidden, grams.span)
        slope = loss_slopes(out, labels) * lr
        features = along + grams.inputs @ found.hidden
        found = Adapted(
            found.readout - slope.swapaxes(1, 2) @ features, found.hidden - slope @ found.readout
        )
    return found


def adapt_values(
    at_support: Float[np.ndarray, "t m k"], at_queries: Float[np.ndarray, "t p k"],
    inner: Float[np.ndarray, "t m m"], cross: Float[np.ndarray, "t p m"],
    labels: Int[np.ndarray, " m"], lr: float, steps: int,
) -> Float[np.ndarray, "t p k"]:  # fmt: skip
    """Outputs at queries after steps of a network that is linear in its weights.

    Args:
        at_support, at_queries: outputs before.
        inner, cross: the kernel of drawings to learn from, and of queries with those.
    """
    moved = np.zeros_like(at_support)
    for _ in range(steps):
        moved = moved - lr * loss_slopes(at_support + inner @ moved, labels)
    return at_queries + cross @ moved


def loss_slopes(
    outputs: Float[np.ndarray, "t p k"], labels: Int[np.ndarray, " p"]
) -> Float[np.ndarray, "t p k"]:
    """The derivatives of each task's mean cross-entropy in its outputs."""
    grown = np.exp(outputs - outputs.max(axis=2, keepdims=True))
    grown /= grown.sum(axis=2, keepdims=True)
    grown[:, np.arange(len(labels)), labels] -= 1.0
    return grown / len(labels)


def losses(
    outputs: Float[np.ndarray, "t p k"], labels: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " t"]:
    """The mean cross-entropy of each task."""
    top = outputs.max(axis=2, keepdims=True)
    normal = np.log(np.exp(outputs - top).sum(axis=2)) + top[..., 0]
    return (normal - outputs[:, np.arange(len(labels)), labels]).mean(axis=1)


def hits(
    outputs: Float[np.ndarray, "t p k"], labels: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " t"]:
    """The share of each task's drawings that are told right."""
    return (outputs.argmax(axis=2) == labels).mean(axis=1)
