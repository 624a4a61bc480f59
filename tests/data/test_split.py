"""Splits are partitions, by class, the same for the same seed."""

import numpy as np
import pytest

from widthwise.data import DataError, load
from widthwise.data.split import sizes, split


def labelled(rng, rows: int) -> np.ndarray:
    """Labels 0..k-1, each at least once, of uneven frequency."""
    k = int(rng.integers(2, 6))
    weights = rng.dirichlet(np.full(k, 0.5))
    return rng.permutation(np.concatenate([np.arange(k), rng.choice(k, size=rows - k, p=weights)]))


@pytest.mark.parametrize("case", range(60))
def test_split_is_a_partition_in_proportion(case):
    rng = np.random.default_rng(case)
    rows = int(rng.integers(12, 200))
    labels = labelled(rng, rows)
    train = int(rng.integers(1, rows))
    test = int(rng.integers(1, rows - train + 1))
    first, second = split(rows, train, test, seed=case, labels=labels)
    assert len(first) == train and len(second) == test
    assert len({*first.tolist(), *second.tolist()}) == train + test
    again = split(rows, train, test, seed=case, labels=labels)
    assert np.array_equal(first, again[0]) and np.array_equal(second, again[1])
    counts = np.bincount(labels)
    taken = np.bincount(labels[first], minlength=len(counts))
    if train >= len(counts):
        assert (taken >= 1).all(), "every class is trained on"
    if (counts * train / rows >= 1).all():
        assert (np.abs(taken - counts * train / rows) < 1 + 1e-9).all()


def test_split_without_labels_is_a_partition():
    first, second = split(10, 6, 4, seed=3)
    assert sorted([*first, *second]) == list(range(10))
    assert not np.array_equal(first, split(10, 6, 4, seed=4)[0])


def test_digits_has_its_own_sizes():
    data = load("digits")
    assert len(data.x_train) == 1000 and len(data.x_test) == 797
    every = data.y_train.sum(axis=0) + data.y_test.sum(axis=0)
    np.testing.assert_array_less(np.abs(data.y_train.sum(axis=0) - every * 1000 / 1797), 1)
    assert data.fingerprint() == load("digits").fingerprint()
    assert data.fingerprint() != load("digits", seed=1).fingerprint()


def test_a_class_of_one_row_is_trained_on():
    labels = np.array([0] * 9 + [1])
    for seed in range(5):
        first, _ = split(10, 8, 2, seed, labels)
        assert 1 in labels[first]


def test_sizes():
    assert sizes(150, None, None) == (120, 30)
    assert sizes(2, None, None) == (1, 1)
    assert sizes(1797, 1500, None, 797) == (1500, 297)
    assert sizes(1797, 200, None, 797) == (200, 797)
    assert sizes(100, 99, None) == (99, 1)


@pytest.mark.parametrize(
    "train, test, fix",
    [(0, None, "positive"), (None, -3, "positive"), (151, None, "at most 150"),
     (150, None, "at most 150"), (100, 51, "at most 150"), (None, 150, "at most 150")],
)  # fmt: skip
def test_impossible_counts_are_refused(train, test, fix):
    with pytest.raises(DataError, match=fix) as caught:
        load("iris", train=train, test=test)
    assert "\n" not in str(caught.value)
