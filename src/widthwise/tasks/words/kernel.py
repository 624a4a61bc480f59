"""Continuous bag of words with negative sampling, position after position, on columns of rows.

A position gathers rows of the context into their mean h, scores targets against h, and scatters
what it learned into the rows of both. Threads divide the columns among themselves and meet once a
position, where they exchange parts of the scores. The parts belong to slices of columns that do
not depend on the number of threads, and everyone adds them in the same order: so the result is
the same, bit for bit, for any number of threads.

Targets are updated one after another and may repeat. h stays, so that an updated row is always
scale C + shift h, with C the row before the position: the sequential rule becomes arithmetic on
scalars, and every row is read twice and written once.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

from widthwise.tasks.words.barrier import wait

SLICES = 32  # at most: of columns, each with its own part of the scores
GRAIN = 64  # columns of a slice are a multiple of this
REACH = 12.0  # of the table of word2vec.c: scores past it count as certain


class Columns(NamedTuple):
    """How rows of some width lie in memory: padded with zeros to whole slices' grains."""

    padded: int  # numbers a row
    slice: int  # columns of a slice; the last may be shorter
    slices: int

    @classmethod
    def of(cls, width: int) -> "Columns":
        """
        >>> Columns.of(2296)
        Columns(padded=2304, slice=128, slices=18)
        """
        grains = -(-width // GRAIN)
        each = GRAIN * -(-grains // SLICES)
        return cls(GRAIN * grains, each, -(-GRAIN * grains // each))

    def share(self, thread: int, threads: int) -> tuple[int, int]:
        """The slices of one thread, from and up to."""
        return self.slices * thread // threads, self.slices * (thread + 1) // threads


@njit(nogil=True, cache=True, fastmath=True)
@no_type_check
def _dot(x, y):
    total = np.float32(0)
    for j in range(x.size):
        total += x[j] * y[j]
    return total


@njit(nogil=True, cache=True)
@no_type_check
def _sigmoid(score, table):
    """1 / (1 + exp(-score)), or word2vec.c's reading of its table where one is given."""
    if table.size == 0:
        return 1.0 / (1.0 + math.exp(-score))
    if score > REACH:
        return 1.0
    if score < -REACH:
        return 0.0
    # The C code divides whole numbers, 1000 / 12 / 2, hence its entries lie off by up to 1.6 %.
    return table[int((score + REACH) * (table.size // int(REACH) // 2))]


@njit(nogil=True, cache=True)
@no_type_check
def _distinct(words, rows, place):
    """Distinct entries of `words` that are no gap, in order, and where each stands; their number.

    place is -1 for a gap.
    """
    found = 0
    for j in range(words.size):
        place[j] = -1
        if words[j] < 0:
            continue
        for k in range(found):
            if rows[k] == words[j]:
                place[j] = k
        if place[j] < 0:
            place[j] = found
            rows[found] = words[j]
            found += 1
    return found


@njit(nogil=True, cache=True, fastmath=True)
@no_type_check
def _gather(inputs, rows, times, found, size, low, mean):
    """The mean of the context's rows, over this thread's columns."""
    mean[:] = 0
    for k in range(found):
        weight = np.float32(times[k] / size)
        row = inputs[rows[k], low : low + mean.size]
        for j in range(mean.size):
            mean[j] += weight * row[j]


@njit(nogil=True, cache=True)
@no_type_check
def _score(outputs, rows, found, first, last, each, low, mean, parts):
    """This thread's parts of <h, C> for all targets, and of <h, h> in the last column."""
    for k in range(found + 1):
        for s in range(first, last):
            start = s * each - low
            h = mean[start : min(start + each, mean.size)]
            if k == found:
                parts[s, parts.shape[1] - 1] = _dot(h, h)
            else:
                row = outputs[rows[k], low + start : low + start + h.size]
                parts[s, k] = _dot(h, row)


@njit(nogil=True, cache=True)
@no_type_check
def _learn(targets, place, found, parts, rate, decay, table, pull, scale, shift):
    """The sequential rule, on scalars: fills pull, scale and shift; returns h's weight in e.

    Afterwards e is own h + sum pull C, and the row C becomes scale C + shift h.
    """
    last = parts.shape[1] - 1
    norm = 0.0
    for s in range(parts.shape[0]):
        norm += parts[s, last]
    for k in range(found):
        pull[k], scale[k], shift[k] = 0.0, 1.0, 0.0
    own = 0.0
    for j in range(targets.size):
        k = place[j]
        if k < 0:
            continue
        score = 0.0
        for s in range(parts.shape[0]):
            score += parts[s, k]
        label = 1.0 if j == 0 else 0.0
        step = rate * (label - _sigmoid(scale[k] * score + shift[k] * norm, table))
        pull[k] += step * scale[k]
        own += step * shift[k]
        scale[k] *= decay
        shift[k] = shift[k] * decay + step
    return own


@njit(nogil=True, cache=True, fastmath=True)
@no_type_check
def _scatter_targets(outputs, rows, found, low, own, pull, scale, shift, mean, error):
    """e over this thread's columns, and the targets' rows updated, in one pass over them."""
    weight = np.float32(own)
    for j in range(mean.size):
        error[j] = weight * mean[j]
    for k in range(found):
        a, b, c = np.float32(pull[k]), np.float32(scale[k]), np.float32(shift[k])
        row = outputs[rows[k], low : low + mean.size]
        for j in range(mean.size):
            old = row[j]
            error[j] += a * old
            row[j] = b * old + c * mean[j]


@njit(nogil=True, cache=True, fastmath=True)
@no_type_check
def _scatter_context(inputs, rows, times, found, size, low, decay, error):
    """The context's rows, each moved once for every time that its word occurs."""
    for k in range(found):
        scale, push = 1.0, 0.0
        for _ in range(times[k]):
            scale, push = scale * decay, push * decay + 1.0 / size
        a, b = np.float32(scale), np.float32(push)
        row = inputs[rows[k], low : low + error.size]
        for j in range(error.size):
            row[j] = a * row[j] + b * error[j]


@njit(nogil=True, cache=True)
@no_type_check
def follow(
    inputs, outputs, contexts, targets, rates, weight_decay, table, parts, met, thread, share, each
):  # fmt: skip
    """One thread's part in these positions.

    inputs, outputs: (V, padded), changed in place; contexts (P, 2 window) and targets
    (P, 1 + negative), -1 where there is none; rates (P,); table (0,) or (1000,); parts
    (2, slices, 2 + negative); met: marks of the barrier, all zero; share: the slices of this
    thread, each of so many columns.
    """
    first, last = share
    low, high = first * each, min(last * each, inputs.shape[1])
    mean, error = np.empty(high - low, np.float32), np.empty(high - low, np.float32)
    near, far = np.empty(contexts.shape[1], np.int64), np.empty(targets.shape[1], np.int64)
    place_near, place = np.empty_like(near), np.empty_like(far)
    times = np.empty_like(near)
    pull, scale, shift = np.empty(far.size), np.empty(far.size), np.empty(far.size)
    for p in range(rates.size):
        found_near = _distinct(contexts[p], near, place_near)
        found = _distinct(targets[p], far, place)
        times[:found_near] = 0
        size = 0
        for j in range(place_near.size):
            if place_near[j] >= 0:
                times[place_near[j]] += 1
                size += 1
        _gather(inputs, near, times, found_near, size, low, mean)
        # Two sets of parts in turn: no one can be two positions ahead of another.
        mine = parts[p % 2]
        _score(outputs, far, found, first, last, each, low, mean, mine)
        wait(met, thread, p + 1)
        decay = 1.0 - rates[p] * weight_decay
        own = _learn(targets[p], place, found, mine, rates[p], decay, table, pull, scale, shift)
        _scatter_targets(outputs, far, found, low, own, pull, scale, shift, mean, error)
        _scatter_context(inputs, near, times, found_near, size, low, decay, error)
