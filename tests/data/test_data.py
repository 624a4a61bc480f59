"""`Data` itself: what it accepts, that it cannot change, that it survives a pickle."""

import dataclasses
import doctest
import importlib
import pickle
import pkgutil

import numpy as np
import pytest

import widthwise.data
from widthwise.data import Data, DataError, from_arrays, load

X, Y = np.arange(8.0).reshape(4, 2), np.eye(2)[[0, 1, 0, 1]]


def classes(**changed) -> Data:
    given = dict(x_train=X, y_train=Y, x_test=X[:1], y_test=Y[:1]) | changed
    return Data.of(*given.values(), task="classification")


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(widthwise.data.__path__)])
def test_examples_in_docstrings_run(module):
    found = doctest.testmod(importlib.import_module(f"widthwise.data.{module}"))
    assert found.failed == 0


def test_ready_arrays_are_kept_as_they_are():
    data = classes()
    np.testing.assert_array_equal(data.x_train, X)
    assert data.labels_train.tolist() == [0, 1, 0, 1]
    assert data.n_outputs == 2 and data.classes == ("0", "1")
    assert data.target_mean.tolist() == [0, 0] and data.target_scale.tolist() == [1, 1]


def test_arrays_are_copies_and_read_only():
    mine = X.copy()
    data = classes(x_train=mine)
    mine[0, 0] = 7
    assert data.x_train[0, 0] == 0
    for name in ("x_train", "y_train", "x_test", "y_test", "target_mean", "target_scale"):
        with pytest.raises(ValueError):
            getattr(data, name)[...] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


def test_pickle_keeps_content_and_lock():
    data = load("iris")
    again = pickle.loads(pickle.dumps(data))
    assert again.fingerprint() == data.fingerprint() and again.notes == data.notes
    assert not again.x_train.flags.writeable
    raw = np.ones((2, 4))
    np.testing.assert_array_equal(again.encoder.transform(raw), data.encoder.transform(raw))


def test_rows_can_be_taken_away():
    data = load("iris")
    parts = ("x_train", "y_train", "x_test", "y_test")
    bare = dataclasses.replace(data, **{name: getattr(data, name)[:0] for name in parts})
    assert len(bare.x_train) == 0 and bare.n_outputs == 3
    assert pickle.loads(pickle.dumps(bare)).encoder.transform(np.ones((1, 4))).shape == (1, 4)


def test_fingerprint_follows_the_content():
    first = classes().fingerprint()
    assert classes().fingerprint() == first
    assert classes(x_train=X + 1).fingerprint() != first
    assert classes(y_train=Y[::-1]).fingerprint() != first
    regression = Data.of(X, Y, X[:1], Y[:1], task="regression")
    assert regression.fingerprint() != first


@pytest.mark.parametrize(
    "changed, fix",
    [
        (dict(x_train=X[:3]), "one row of targets for each row"),
        (dict(x_test=X[:, :1]), "give the same"),
        (dict(x_train=X[:0], y_train=Y[:0]), "at least one row"),
        (dict(x_train=np.full((4, 2), np.nan)), "fill or drop"),
        (dict(x_train=[["a", "b"]] * 4), "table of numbers"),
        (dict(x_train=X[:, 0]), "rows and columns"),
        (dict(y_train=Y + 1), "one-hot"),
    ],
)
def test_unusable_arrays_are_refused(changed, fix):
    with pytest.raises(DataError, match=fix) as caught:
        classes(**changed)
    assert "\n" not in str(caught.value)


def test_odd_settings_are_refused():
    with pytest.raises(DataError, match="choose 'classification' or"):
        Data.of(X, Y, [], [], task="clustering")
    with pytest.raises(DataError, match="one for each"):
        Data.of(X, Y, [], [], task="classification", classes=("a",))
    with pytest.raises(DataError, match="leave it out"):
        Data.of(X, Y, [], [], task="regression", classes=("a", "b"))
    with pytest.raises(DataError, match="use y_train"):
        _ = Data.of(X, Y, [], [], task="regression").labels_train
    with pytest.raises(DataError, match="widthwise.data.load"):
        classes().encoder.transform(X)


def test_from_arrays_takes_labels_of_any_type():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    for labels in (np.array(["b", "a"] * 20), np.array([True, False] * 20), np.array([3, 1] * 20)):
        data = from_arrays(x, labels)
        assert data.task == "classification" and len(data.classes) == 2
        assert data.classes == tuple(sorted(map(str, set(labels.tolist()))))
        assert len(data.x_test) == 8 and data.y_test.sum(axis=0).tolist() == [4, 4]
    data = from_arrays(x, np.eye(2)[[0, 1] * 20])
    assert data.task == "classification" and data.n_outputs == 2


def test_from_arrays_standardises():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 5, size=(50, 3)), rng.normal(10, 4, size=(50, 2))
    data = from_arrays(x, y, test=7, name="mine")
    assert data.task == "regression" and data.name == "mine" and len(data.x_test) == 7
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((data.x_train**2).mean(), 1)
    np.testing.assert_allclose(data.y_train.std(axis=0), 1)
    back = np.concatenate([data.y_train, data.y_test]) * data.target_scale + data.target_mean
    np.testing.assert_allclose(np.sort(back, axis=0), np.sort(y, axis=0))


def test_from_arrays_scales_images_together():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 200, size=(20, 4, 4)).astype(np.uint8)
    x[:, 0, 0] = 0
    data = from_arrays(x, [0, 1] * 10)
    assert data.x_train.shape == (16, 16) and "pixels" in " ".join(data.notes)
    np.testing.assert_allclose((data.x_train**2).mean(), 1)
    np.testing.assert_allclose(data.encoder.transform(x)[:, 0], data.x_train[0, 0])


def test_from_arrays_takes_a_data_frame():
    import pandas as pd

    frame = pd.DataFrame({"a": range(10), "y": list("pqpqpqpqpq")})
    data = from_arrays(frame, pd.Series([1.5 * i for i in range(10)], name="y"))
    assert data.task == "regression" and data.x_train.shape == (8, 3)
    assert data.encoder.transform(frame).shape == (10, 3)


@pytest.mark.parametrize(
    "x, y, settings, fix",
    [
        (X, [1.5, 2, 3], {}, "one for each"),
        (X[:, 0], [1.5, 2, 3, 4], {}, "rows and columns"),
        ([[1, 2], [3]], [1, 2], {}, "an array"),
        ([["a"], ["b"], ["a"], ["b"]], [1.5, 2, 3, 4], {}, "data frame"),
        (X, [1.5, 2, np.inf, 4], {}, "row 3"),
        (X, [1.0, 1, 1, 1], {"task": "regression"}, "another column"),
        (X, list("abab"), {"task": "regression"}, "leave task out"),
        (X, [[1.5, 2], [3, 4], [5, 6], [7, 8]], {"task": "classification"}, "one column of labels"),
        (X, list("aaaa"), {}, "at least 2 classes"),
        (X, [1.5, 2, 3, 4], {"test": 4}, "at most 4"),
        (X, [1.5, 2, 3, 4], {"test": 0}, "positive"),
        (X, [1.5, 2, 3, 4], {"seed": -1}, "seed"),
        (np.ones((4, 2)), [1.5, 2, 3, 4], {}, "at least one such column"),
    ],
)
def test_from_arrays_refuses(x, y, settings, fix):
    with pytest.raises(DataError, match=fix) as caught:
        from_arrays(x, y, **settings)
    assert "\n" not in str(caught.value)
