"""The order of events: sentences, windows and negatives, the same for every width and machine.

Every random number is a hash of the seed and of where it is used (splitmix64), so that any
sentence can be drawn again from its number alone: nothing of a generator needs to be kept.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float, Int, UInt
from numba import njit

from widthwise.tasks.words.settings import BagOfWords

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
SURE = 1 << 32  # a chance of one
POWER = 0.75  # of the count, in the chance of a negative
REFRESH = 500_000  # words read between two values of the step size
LEAST = 1e-4  # of the step size, relative to its start


class Events(NamedTuple):
    """Positions in the order in which they are learned."""

    contexts: Int[np.ndarray, "P twice_window"]  # words around, -1 where there is none
    targets: Int[np.ndarray, "P one_and_negative"]  # the word, negatives; -1 where skipped
    rates: Float[np.ndarray, " P"]  # step size


class Cursor(NamedTuple):
    """How far the corpus has been followed."""

    epoch: int = 0
    token: int = 0  # of the epoch, the next to be read
    sentence: int = 0  # of the epoch, the next
    read: int = 0  # words read in all, before sub-sampling
    refreshed: int = 0  # words read when the step size was last set


class Draws(NamedTuple):
    """Chances of the words, as whole numbers that hashes are held against."""

    keep: UInt[np.ndarray, " V"]  # of SURE: that an occurrence survives sub-sampling
    accept: UInt[np.ndarray, " V"]  # of SURE: that the alias table keeps its own word
    alias: Int[np.ndarray, " V"]

    @classmethod
    def of(cls, counts: Int[np.ndarray, " V"], sample: float) -> "Draws":
        """Of words with these counts in the corpus.

        >>> Draws.of(np.array([900, 100]), sample=0.1).keep / SURE
        array([0.44444444, 1.        ])
        """
        limit = sample * counts.sum()
        chance = (np.sqrt(counts / limit) + 1) * limit / counts
        keep = np.minimum(chance * SURE, SURE).astype(np.uint64)
        return cls(keep, *_alias(counts**POWER))


def _alias(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's table: one hash draws a word with chance proportional to its weight."""
    size = len(weights)
    chance = weights / weights.sum() * size
    accept, alias = np.ones(size), np.arange(size, dtype=np.int64)
    small, large = list(np.flatnonzero(chance < 1)), list(np.flatnonzero(chance >= 1))
    while small and large:
        low, high = small.pop(), large.pop()
        accept[low], alias[low] = chance[low], high
        chance[high] -= 1 - chance[low]
        (small if chance[high] < 1 else large).append(high)
    return np.minimum(accept * SURE, SURE).astype(np.uint64), alias


def draw(
    ids: Int[np.ndarray, " N"],
    draws: Draws,
    settings: BagOfWords,
    seed: int,
    cursor: Cursor,
    sentences: int,
) -> tuple[Events, Cursor]:
    """The positions of the next sentences, and where these end.

    The tokens of the last sentence of an epoch that are too few for one are dropped. No positions
    are left where the cursor has passed the last epoch.

    Args:
        ids: the corpus, as places in the vocabulary.
        draws: chances of the words.
        settings: of the training.
        seed: of the order.
        cursor: where to begin.
        sentences: how many, at most.
    """
    room = sentences * settings.sentence
    contexts = np.empty((room, 2 * settings.window), np.int32)
    targets = np.empty((room, 1 + settings.negative), np.int32)
    rates = np.empty(room)
    words = np.empty(settings.sentence, np.int32)
    filled = 0
    while filled < room and cursor.epoch < settings.epochs:
        key = _key(seed, cursor.epoch)
        after = _sentence(ids, cursor.token, draws.keep, key, words)
        if after < 0:
            rest = len(ids) - cursor.token
            cursor = Cursor(cursor.epoch + 1, 0, 0, cursor.read + rest, cursor.refreshed)
            continue
        if cursor.read - cursor.refreshed > REFRESH:
            cursor = cursor._replace(refreshed=cursor.read)
        done = cursor.refreshed / (settings.epochs * len(ids) + 1)
        here = slice(filled, filled + settings.sentence)
        rates[here] = settings.rate * max(LEAST, 1 - done)
        key = _key(seed, cursor.epoch, cursor.sentence + 1)
        _windows(words, key, settings.window, draws.accept, draws.alias,
                 contexts[here], targets[here])  # fmt: skip
        filled += settings.sentence
        cursor = cursor._replace(
            token=after, sentence=cursor.sentence + 1, read=cursor.read + after - cursor.token
        )
    return Events(contexts[:filled], targets[:filled], rates[:filled]), cursor


def _key(*numbers: int) -> np.uint64:
    """A hash of several numbers."""
    key = np.uint64(0)
    for number in numbers:
        key = np.uint64(_hash(key ^ np.uint64(number)))
    return key


@njit(nogil=True, cache=True)
@no_type_check
def _hash(x):
    x = x + _STEP
    x = (x ^ (x >> _30)) * _FIRST
    x = (x ^ (x >> _27)) * _SECOND
    return x ^ (x >> _31)


@njit(nogil=True, cache=True)
@no_type_check
def _sentence(ids, start, keep, key, words):
    """Fills `words` with the next occurrences that survive; where they end, or -1 if too few."""
    kept = 0
    for i in range(start, ids.size):
        if (_hash(key + np.uint64(i) * _STEP) >> _32) < keep[ids[i]]:
            words[kept] = ids[i]
            kept += 1
            if kept == words.size:
                return i + 1
    return -1


@njit(nogil=True, cache=True)
@no_type_check
def _windows(words, key, window, accept, alias, contexts, targets):
    """Context and targets of every word of a sentence."""
    contexts[:] = -1
    for p in range(words.size):
        key = _hash(key)
        reach = window - np.int64(key % np.uint64(window))
        filled = 0
        for q in range(max(0, p - reach), min(words.size, p + reach + 1)):
            if q != p:
                contexts[p, filled] = words[q]
                filled += 1
        targets[p, 0] = words[p]
        for k in range(1, targets.shape[1]):
            key = _hash(key)
            word = np.int64(((key >> _32) * np.uint64(accept.size)) >> _32)
            if (key & _LOW) >= accept[word]:
                word = alias[word]
            targets[p, k] = word if word != words[p] else -1
