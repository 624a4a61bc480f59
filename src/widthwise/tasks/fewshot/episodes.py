"""Which classes serve for training, validation and test, and which drawings make a task."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from widthwise.data.base import DataError
from widthwise.tasks.fewshot.drawings import Drawings
from widthwise.tasks.fewshot.setting import FewShot

SHARES = (1028, 172, 423)  # classes of Omniglot's 1,623 for training, validation and test
TRAIN, VALIDATION, TEST = range(3)
CHUNK = 64  # tasks that are judged at a time
STARTS = 3  # the stream of initial weights, after those of the three parts


class Episodes(NamedTuple):
    """Tasks: rows of drawings and their quarter turns, t tasks of k classes, with s to learn from
    and q to be tested on in each class."""

    support: Int[np.ndarray, "t k s"]
    queries: Int[np.ndarray, "t k q"]
    turns: Int[np.ndarray, "t k"]

    def turns_of(self, rows: Int[np.ndarray, "t k s"]) -> Int[np.ndarray, "t m"]:
        """The quarter turns of each of these drawings, the support's or the queries'."""
        return np.repeat(self.turns, rows.shape[2], axis=1)

    def in_chunks(self) -> Iterator["Episodes"]:
        """A few tasks at a time, so that memory does not grow with their number."""
        for start in range(0, len(self.turns), CHUNK):
            yield Episodes(*(part[start : start + CHUNK] for part in self))


class Pixels(NamedTuple):
    """The drawings of tasks, m to learn from and p to be tested on, and their classes."""

    support: Float[np.ndarray, "t m d"]
    queries: Float[np.ndarray, "t p d"]
    support_labels: Int[np.ndarray, " m"]
    query_labels: Int[np.ndarray, " p"]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """The classes of one part, each as often as it has orientations."""

    drawings: Drawings
    number: int  # TRAIN, VALIDATION or TEST
    classes: Int[np.ndarray, " c"]
    orientations: int

    def draw(self, setting: FewShot, count: int, key: tuple[int, ...]) -> Episodes:
        """Tasks of different classes, and different drawings of each; the same for a key."""
        rng = np.random.default_rng([self.number, *key])
        offered = len(self.classes) * self.orientations
        # the smallest of random numbers are a choice without repetition
        chosen = rng.random((count, offered)).argpartition(setting.way - 1)[:, : setting.way]
        turns, which = np.divmod(rng.permuted(chosen, axis=1), len(self.classes))
        classes = self.classes[which]
        available = self.drawings.counts[classes][..., None]
        chance = rng.random((count, setting.way, int(available.max())))
        chance[np.arange(chance.shape[-1]) >= available] = 2.0
        drawn = chance.argsort(axis=-1)[..., : setting.shot + setting.queries]
        rows = self.drawings.first[classes][..., None] + drawn
        return Episodes(rows[..., : setting.shot], rows[..., setting.shot :], turns)

    def pixels(self, episodes: Episodes) -> Pixels:
        """What the drawings look like."""
        parts = []
        for rows in (episodes.support, episodes.queries):
            flat = rows.reshape(len(rows), -1)
            parts.append(self.drawings.pixels(flat, episodes.turns_of(rows)))
        counts = episodes.support.shape[2], episodes.queries.shape[2]
        return Pixels(*parts, *(labels(episodes.turns.shape[1], count) for count in counts))

    @functools.cached_property
    def rows(self) -> Int[np.ndarray, " n"]:
        """The drawings of the part's classes."""
        owner = np.repeat(np.arange(len(self.drawings.classes)), self.drawings.counts)
        return np.flatnonzero(np.isin(owner, self.classes))

    @functools.cached_property
    def places(self) -> Int[np.ndarray, " all"]:
        """Where each drawing stands in `rows`; -1 for those of other parts."""
        found = np.full(len(self.drawings.ink), -1)
        found[self.rows] = np.arange(len(self.rows))
        return found

    @functools.cached_property
    def squared_sizes(self) -> Float[np.ndarray, " n"]:
        """|x|^2 of the drawings in `rows`."""
        return np.array([np.sum((self.drawings.ink[row] / 255.0) ** 2) for row in self.rows])

    def every_turn(self, dtype: type = np.float64) -> Iterator[Float[np.ndarray, "n d"]]:
        """The pixels of all drawings in `rows`, turned by 0, 1, ... quarters."""
        for turn in range(self.orientations):
            yield self.drawings.pixels(self.rows, np.full(len(self.rows), turn)).astype(dtype)

    @property
    def dimension(self) -> int:
        return self.drawings.ink.shape[1]


def split(drawings: Drawings, setting: FewShot) -> tuple[Part, Part, Part]:
    """Training, validation and test classes, drawn with the seed `setting.split`.

    The alphabets are shuffled, and the classes in each; then Omniglot's 1,623 classes are cut into
    1,028, 172 and 423, fewer or more in the same shares. So a test is on alphabets never seen, but
    for the one at the cut. Classes of training and validation come in four orientations, which
    count as classes of their own.

    Raises DataError for too few classes, or classes with too few drawings.
    """
    count = len(drawings.classes)
    needed = setting.shot + setting.queries
    if drawings.counts.min() < needed:
        label = drawings.classes[int(drawings.counts.argmin())]
        raise DataError(
            f"The class {label} has {drawings.counts.min()} drawings and a task takes {needed}: "
            "lower shot or queries."
        )
    ends = np.round(np.cumsum(SHARES) * (count / sum(SHARES))).astype(int)
    order = _alphabet_by_alphabet(drawings, setting.split)
    parts = [np.sort(part) for part in np.split(order, ends[:-1])]
    found = []
    for number, (name, classes) in enumerate(
        zip(("training", "validation", "test"), parts, strict=True)
    ):
        orientations = 1 if number == TEST else 4
        if len(classes) * orientations < setting.way:
            raise DataError(
                f"{drawings.name} has {count} classes, of which {len(classes)} are for {name}, and "
                f"a task takes {setting.way}: lower way, or give more classes."
            )
        found.append(Part(drawings, number, classes, orientations))
    return tuple(found)  # type: ignore[return-value]


def _alphabet_by_alphabet(drawings: Drawings, seed: int) -> Int[np.ndarray, " c"]:
    rng = np.random.default_rng([seed])
    alphabets, member = np.unique(drawings.alphabets, return_inverse=True)
    place = rng.permutation(len(alphabets))[member]
    return np.lexsort((rng.random(len(member)), place))


def labels(way: int, count: int) -> Int[np.ndarray, " m"]:
    """The classes of a task's drawings, `count` of each in turn.

    >>> labels(2, 3).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    return np.repeat(np.arange(way), count)
