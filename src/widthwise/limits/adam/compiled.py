"""One step of every particle, compiled by Numba: memory is read once a step.

Particles stand in chunks of CHUNK neurons, which lie side by side in memory for each row. A visit
to a chunk gathers the gradients of its weights over the rows of a batch, moves the weights' memory
and their sums of steps, and adds what these sums do to the outputs of the next batch's rows.

Arrays: `dx` (chunks, rows, outputs, CHUNK) holds the outputs' slopes in pre-activations; where
these are a slope times a number a neuron (the last layer), the number, with one row, and `slope`
(chunks, rows, CHUNK), which has no rows otherwise. `y` (chunks, rows, CHUNK + PAIRS - 1) holds
features. `w`, `m`, `v` are sums of steps and Adam's two moments.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

CHUNK = 64  # neurons
PAIRS = 4  # neurons of the layer before that each neuron is paired with
_ZERO, _ONE = np.float32(0), np.float32(1)


class Pace(NamedTuple):
    """Adam's numbers at one step, float32."""

    lr: np.float32
    keep1: np.float32
    take1: np.float32  # 1 - keep1
    keep2: np.float32
    take2: np.float32
    whole1: np.float32  # 1 - keep1^steps, the weight of all gradients seen
    whole2: np.float32
    eps: np.float32


def pace_of(lr: float, b1: float, b2: float, eps: float, step: int) -> Pace:
    """At step 0, 1, ..."""
    numbers = lr, b1, 1 - b1, b2, 1 - b2, 1 - b1 ** (step + 1), 1 - b2 ** (step + 1), eps
    return Pace(*map(np.float32, numbers))


@njit(nogil=True, cache=True, inline="always")
@no_type_check
def _adam(g, gain, pace, w, m, v):
    """Moves the sums of steps of one neuron's or a chunk's weights."""
    for i in range(CHUNK):
        gradient = gain * g[i]
        m[i] = pace.keep1 * m[i] + pace.take1 * gradient
        v[i] = pace.keep2 * v[i] + pace.take2 * gradient * gradient
        w[i] += pace.lr * (m[i] / pace.whole1) / (np.sqrt(v[i] / pace.whole2) + pace.eps)


@njit(nogil=True, cache=True, inline="always")
@no_type_check
def _collect(dx, slope, c, a, chi, e):
    """The loss's slopes in pre-activations, of one row."""
    at = a if slope.shape[1] == 0 else 0
    e[:] = _ZERO
    for k in range(chi.shape[0]):
        for i in range(CHUNK):
            e[i] += chi[k] * dx[c, at, k, i]
    if slope.shape[1] > 0:
        for i in range(CHUNK):
            e[i] *= slope[c, a, i]


@njit(nogil=True, cache=True, inline="always", fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _spread(dx, slope, c, a, z, out):
    """Adds to the outputs of one row what changes of pre-activations do to them."""
    at = a if slope.shape[1] == 0 else 0
    if slope.shape[1] > 0:
        for i in range(CHUNK):
            z[i] *= slope[c, a, i]
    for k in range(out.shape[0]):
        total = _ZERO
        for i in range(CHUNK):
            total += dx[c, at, k, i] * z[i]
        out[k] += total


@njit(nogil=True, cache=True)
@no_type_check
def hidden(first, last, dx, slope, y, gains, weights, pace, rows, chi, following, w, m, v, out):
    """Weights between hidden layers, PAIRS a neuron, and its bias: w is (chunks, PAIRS + 1, CHUNK).

    `gains` of both in gradients, `weights` of both in outputs.
    """
    e, g = np.empty(CHUNK, np.float32), np.empty((PAIRS + 1, CHUNK), np.float32)
    for c in range(first, last):
        if len(rows) > 0:
            g[:] = _ZERO
            for b in range(len(rows)):
                a = rows[b]
                _collect(dx, slope, c, a, chi[b], e)
                for j in range(PAIRS):
                    for i in range(CHUNK):
                        g[j, i] += e[i] * y[c, a, i + j]
                for i in range(CHUNK):
                    g[PAIRS, i] += e[i]
            for j in range(PAIRS + 1):
                gain = gains[0] if j < PAIRS else gains[1]
                _adam(g[j], gain, pace, w[c, j], m[c, j], v[c, j])
        for j in range(PAIRS + 1):
            weight = weights[0] if j < PAIRS else weights[1]
            for i in range(CHUNK):
                g[j, i] = weight * w[c, j, i]
        for b in range(len(following)):
            a = following[b]
            for i in range(CHUNK):
                e[i] = g[PAIRS, i]
            for j in range(PAIRS):
                for i in range(CHUNK):
                    e[i] += g[j, i] * y[c, a, i + j]
            _spread(dx, slope, c, a, e, out[b])


@njit(nogil=True, cache=True)
@no_type_check
def inputs(
    first, last, dx, slope, seen, weights, pace, rows, chi, following, seen_next, w, m, v, out
):
    """Weights of the inputs: w is (chunks, columns, CHUNK).

    `seen` (columns, batch) and `seen_next` (batch, columns) are what the weights read, gains
    included; `weights` (columns,) are factors in outputs.
    """
    e = np.empty((len(rows), CHUNK), np.float32)
    for c in range(first, last):
        if len(rows) > 0:
            for b in range(len(rows)):
                _collect(dx, slope, c, rows[b], chi[b], e[b])
            g = np.dot(seen, e)
            for j in range(len(g)):
                _adam(g[j], _ONE, pace, w[c, j], m[c, j], v[c, j])
        moved = weights.reshape(-1, 1) * w[c]
        z = np.dot(seen_next, moved)
        for b in range(len(following)):
            _spread(dx, slope, c, following[b], z[b], out[b])


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def readout(first, last, y, gain, weight, pace, rows, chi, following, w, m, v, out):
    """Weights of the readout: w is (chunks, outputs, CHUNK)."""
    outputs = w.shape[1]
    g = np.empty((outputs, CHUNK), np.float32)
    for c in range(first, last):
        if len(rows) > 0:
            g[:] = _ZERO
            for b in range(len(rows)):
                for k in range(outputs):
                    for i in range(CHUNK):
                        g[k, i] += chi[b, k] * y[c, rows[b], i]
            for k in range(outputs):
                _adam(g[k], gain, pace, w[c, k], m[c, k], v[c, k])
        for b in range(len(following)):
            for k in range(outputs):
                total = _ZERO
                for i in range(CHUNK):
                    total += y[c, following[b], i] * w[c, k, i]
                out[b, k] += weight * total
