"""Which rows train and which test: disjoint, shuffled, the same for the same seed."""

import numpy as np
from jaxtyping import Int

from widthwise.data.base import DataError

TEST_SHARE = 0.2


def sizes(
    rows: int, train: int | None, test: int | None, usual_test: int | None = None
) -> tuple[int, int]:
    """Numbers of training and test rows; those not asked for follow from the rest.

    >>> sizes(150, None, None), sizes(150, 140, None), sizes(150, None, 50)
    ((120, 30), (140, 10), (100, 50))

    Raises DataError for counts that are not positive or more than there are.
    """
    check_counts(train, test)
    usual = max(1, round(TEST_SHARE * rows)) if usual_test is None else usual_test
    asked = (train or 1) + (test or 1)  # whichever is not asked for still needs a row
    if asked > rows:
        raise DataError(
            f"{train or 1:,} training and {test or 1:,} test rows are asked for, and there are "
            f"{rows:,} rows: ask for at most {rows:,} together."
        )
    chosen = test if test is not None else min(usual, rows - (train or 1))
    return (train if train is not None else rows - chosen), chosen


def check_counts(train: int | None, test: int | None) -> None:
    """Refuses counts that are no positive whole numbers."""
    for name, count in (("train", train), ("test", test)):
        if count is not None and (count < 1 or count != int(count)):
            raise DataError(f"{name} is {count}: give a positive number of rows.")


def take(available: int, count: int | None, part: str) -> int:
    """How many rows of a part that comes with its own split; None is all of them.

    >>> take(60000, None, "training"), take(60000, 500, "training")
    (60000, 500)
    """
    if count is not None and count > available:
        raise DataError(
            f"{count:,} {part} rows are asked for, and there are {available:,}: ask for at most "
            "these."
        )
    return available if count is None else count


def split(
    rows: int, train: int, test: int, seed: int, labels: Int[np.ndarray, " rows"] | None = None
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Positions of training and of test rows.

    >>> train, test = split(10, 6, 4, seed=0, labels=np.array([0] * 5 + [1] * 5))
    >>> (train < 5).sum(), (test < 5).sum(), len(set(train) | set(test))
    (np.int64(3), np.int64(2), 10)

    With `labels` each part has every class in proportion, to one row; a class of few rows is
    trained on before it is tested on.
    """
    if seed < 0:
        raise DataError(f"seed is {seed}: give 0 or a positive whole number.")
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(rows)
    if labels is None:
        return order[:train], order[train : train + test]
    counts = np.bincount(labels)
    first = _shares(counts, counts, train, least=1)
    second = _shares(counts - first, counts, test, least=0)
    shuffled = labels[order]
    chosen: tuple[list, list] = ([], [])
    for label, (a, b) in enumerate(zip(first, second, strict=True)):
        members = order[shuffled == label]
        chosen[0].append(members[:a])
        chosen[1].append(members[a : a + b])
    return rng.permutation(np.concatenate(chosen[0])), rng.permutation(np.concatenate(chosen[1]))


def _shares(
    room: Int[np.ndarray, " k"], counts: Int[np.ndarray, " k"], total: int, least: int
) -> Int[np.ndarray, " k"]:
    """Splits `total` in proportion to `counts`, at most `room` each and `least` where it fits."""
    wanted = counts * (total / counts.sum())
    given = np.minimum(np.floor(wanted).astype(int), room)
    if total >= np.count_nonzero(room):
        given = np.maximum(given, np.minimum(least, room))
    while given.sum() < total:
        given[np.argmax(np.where(given < room, wanted - given, -np.inf))] += 1
    while given.sum() > total:
        given[np.argmax(np.where(given > least, given - wanted, -np.inf))] -= 1
    return given
