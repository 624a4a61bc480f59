"""One step of every particle, compiled by Numba: memory is read once a step.

Particles stand in chunks of CHUNK neurons, which lie side by side in memory for each row. A visit
to a chunk gathers the gradients of its weights over the rows of a batch, moves the weights' memory
and their sums of steps, and adds what these sums do to the outputs of the next batch's rows.

Arrays: `dx` (chunks, rows, outputs, CHUNK) holds the outputs' slopes in pre-activations; where
these are a slope times a number a neuron (the last layer), the number, with one row, and `slope`
(chunks, rows, CHUNK), which has no rows otherwise. `y` (chunks, rows, CHUNK + PAIRS - 1) holds
features. `m`, `v` are the two moments. `w` are sums of steps less `line` times the averaged
gradient m, a number a tensor: what that linear part does is added exactly (linear.py). `fit`
(tensors, 2) gathers the products of which the next step's line is made.
"""

from typing import no_type_check

import numpy as np
from numba import njit

CHUNK = 64  # neurons
PAIRS = 4  # neurons of the layer before that each neuron is paired with
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(nogil=True, cache=True, inline="always")
@no_type_check
def _adam(g, gain, pace, line, fit, w, m, v):
    """Moves the sums of steps of one neuron's or a chunk's weights; what g was is lost."""
    for i in range(CHUNK):
        gradient = gain * g[i]
        m[i] = pace.keep1 * m[i] + pace.take1 * gradient
        seen = m[i] if pace.of_mean else gradient
        v[i] = pace.keep2 * v[i] + pace.take2 * seen * seen
        mean = m[i] / pace.whole1
        g[i] = mean / (np.sqrt(v[i] / pace.whole2) + pace.eps)
        w[i] = pace.left * w[i] + pace.lr * (g[i] - line * mean)
    _gather(g, m, fit)


@njit(nogil=True, cache=True, inline="always", fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _gather(step, m, fit):
    both, own = _ZERO, _ZERO
    for i in range(CHUNK):
        both += step[i] * m[i]
        own += m[i] * m[i]
    fit[0] += both
    fit[1] += own


@njit(nogil=True, cache=True, inline="always")
@no_type_check
def _collect(dx, slope, c, rows, chi, e):
    """The loss's slopes in pre-activations, of a batch: e is (batch, CHUNK)."""
    if slope.shape[1] > 0:
        np.dot(chi, dx[c, 0], e)
        for b in range(len(rows)):
            own, at = e[b], slope[c, rows[b]]
            for i in range(CHUNK):
                own[i] *= at[i]
    else:
        for b in range(len(rows)):
            own, at = e[b], dx[c, rows[b]]
            own[:] = _ZERO
            for k in range(chi.shape[1]):
                weight = chi[b, k]
                for i in range(CHUNK):
                    own[i] += weight * at[k, i]


@njit(nogil=True, cache=True, inline="always", fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _spread(dx, slope, c, rows, z, out):
    """Adds to the outputs of rows what changes z of pre-activations, (rows, CHUNK), do to them."""
    if slope.shape[1] > 0:
        for b in range(len(rows)):
            own, at = z[b], slope[c, rows[b]]
            for i in range(CHUNK):
                own[i] *= at[i]
        out += np.dot(z, dx[c, 0].T)
    else:
        for b in range(len(rows)):
            own, at = z[b], dx[c, rows[b]]
            for k in range(out.shape[1]):
                total = _ZERO
                for i in range(CHUNK):
                    total += at[k, i] * own[i]
                out[b, k] += total


@njit(nogil=True, cache=True)
@no_type_check
def hidden(
    first, last, dx, slope, y, gains, weights, pace, rows, chi, following, line, fit, w, m, v, out
):
    """Weights between hidden layers, PAIRS a neuron, and its bias: w is (chunks, PAIRS + 1, CHUNK).

    `gains` of both in gradients, `weights` of both in outputs.
    """
    e, g = np.empty((len(rows), CHUNK), np.float32), np.empty((PAIRS + 1, CHUNK), np.float32)
    z = np.empty((len(following), CHUNK), np.float32)
    for c in range(first, last):
        if len(rows) > 0:
            _collect(dx, slope, c, rows, chi, e)
            g[:] = _ZERO
            for b in range(len(rows)):
                own, at = e[b], y[c, rows[b]]
                for j in range(PAIRS):
                    for i in range(CHUNK):
                        g[j, i] += own[i] * at[i + j]
                for i in range(CHUNK):
                    g[PAIRS, i] += own[i]
            for j in range(PAIRS + 1):
                t = 0 if j < PAIRS else 1
                _adam(g[j], gains[t], pace, line[t], fit[t], w[c, j], m[c, j], v[c, j])
        for j in range(PAIRS + 1):
            weight = weights[0] if j < PAIRS else weights[1]
            for i in range(CHUNK):
                g[j, i] = weight * w[c, j, i]
        for b in range(len(following)):
            own, at = z[b], y[c, following[b]]
            own[:] = g[PAIRS]
            for j in range(PAIRS):
                for i in range(CHUNK):
                    own[i] += g[j, i] * at[i + j]
        _spread(dx, slope, c, following, z, out)


@njit(nogil=True, cache=True)
@no_type_check
def inputs(
    first, last, dx, slope, seen, weights, pace, rows, chi, following, seen_next, line, fit,
    w, m, v, out
):  # fmt: skip
    """Weights of the inputs: w is (chunks, columns, CHUNK).

    `seen` (columns, batch) and `seen_next` (batch, columns) are what the weights read, gains
    included; `weights` (columns,) are factors in outputs.
    """
    e = np.empty((len(rows), CHUNK), np.float32)
    for c in range(first, last):
        if len(rows) > 0:
            _collect(dx, slope, c, rows, chi, e)
            g = np.dot(seen, e)
            for j in range(len(g)):
                t = 0 if j + 1 < len(g) else 1
                _adam(g[j], _ONE, pace, line[t], fit[t], w[c, j], m[c, j], v[c, j])
        moved = weights.reshape(-1, 1) * w[c]
        _spread(dx, slope, c, following, np.dot(seen_next, moved), out)


@njit(nogil=True, cache=True)
@no_type_check
def readout(first, last, y, gain, weight, pace, rows, chi, following, line, fit, w, m, v, out):
    """Weights of the readout: w is (chunks, outputs, CHUNK)."""
    features = np.empty((max(len(rows), len(following)), CHUNK), np.float32)
    gathered = np.ascontiguousarray(chi.T)
    for c in range(first, last):
        if len(rows) > 0:
            for b in range(len(rows)):
                features[b] = y[c, rows[b], :CHUNK]
            g = np.dot(gathered, features[: len(rows)])
            for k in range(len(g)):
                _adam(g[k], gain, pace, line[0], fit[0], w[c, k], m[c, k], v[c, k])
        for b in range(len(following)):
            features[b] = y[c, following[b], :CHUNK]
        out += np.dot(features[: len(following)], (weight * w[c]).T)
