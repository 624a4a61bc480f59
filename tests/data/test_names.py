"""What a name opens: scikit-learn's sets, openml.org, and the refusal of others."""

import urllib.error
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

from widthwise.data import DataError, load, names
from widthwise.data.embedded import iris

SHAPES = {
    "digits": (1797, 64, 10), "iris": (150, 4, 3), "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2), "diabetes": (442, 10, 1), "linnerud": (20, 3, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    data = load(name)
    rows, d, k = SHAPES[name]
    assert len(data.x_train) + len(data.x_test) == rows
    assert data.x_train.shape[1] == d and data.n_outputs == k


@pytest.mark.parametrize("name, what", list(names()))
def test_every_set_keeps_the_contract(name, what):
    assert what.endswith(".")
    data = load(name)
    assert data.name == name and load(name).fingerprint() == data.fingerprint()
    assert data.x_train.dtype == data.y_train.dtype == np.float64
    np.testing.assert_allclose((data.x_train**2).mean(), 1)
    assert (data.task == "regression") == (data.classes == ())
    assert any("mean and standard deviation" in note for note in data.notes)


def test_names_take_any_case_and_another_target():
    assert load("IRIS").classes == ("setosa", "versicolor", "virginica")
    data = load("iris", target="petal width (cm)")
    assert data.task == "regression" and data.x_train.shape[1] == 3 + 3


def test_new_rows_are_coded_alike():
    frame = iris().frame
    data = load("iris")
    coded = data.encoder.transform(frame)
    found = {tuple(row) for row in coded.round(9).tolist()}
    assert {tuple(row) for row in data.x_test.round(9).tolist()} <= found
    with pytest.raises(DataError, match="'sepal length' meant"):
        data.encoder.transform(frame.rename(columns={"sepal length (cm)": "sepal length"}))
    with pytest.raises(DataError, match="give the same ones"):
        data.encoder.transform(np.ones((2, 3)))


@pytest.mark.parametrize("name, near", [("digitz", "digits"), ("xyzzy", "known are digits")])
def test_unknown_names_offer_the_nearest(name, near):
    with pytest.raises(DataError, match=near) as caught:
        load(name)
    assert "No file or folder" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_name_is_refused(unchecked):
    with pytest.raises(DataError, match="from_arrays"):
        load(np.ones((3, 2)))  # type: ignore[arg-type]


def bunch() -> SimpleNamespace:
    frame = pd.DataFrame(
        {"size": [1.0, 2, 3, np.nan] * 5, "colour": pd.Categorical(["r", "g"] * 10)}
    )
    frame["kind"] = pd.Categorical(["u", "u", "v", "v"] * 5)
    return SimpleNamespace(frame=frame, target_names=["kind"])


def test_openml_by_name_and_number(monkeypatch):
    asked = []

    def fetch(**settings):
        asked.append(settings)
        warnings.warn("Multiple active versions exist. More of this.", UserWarning, stacklevel=1)
        return bunch()

    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    data = load("openml:things")
    assert data.name == "openml:things" and data.classes == ("u", "v")
    assert data.x_train.shape == (16, 3) and "Multiple active versions exist." in data.notes
    assert load("openml:61", target="size", task="regression").n_outputs == 1
    assert asked == [
        {"name": "things", "as_frame": True},
        {"data_id": 61, "as_frame": True},
    ]


@pytest.mark.parametrize(
    "error, fix",
    [
        (urllib.error.URLError("no route\nto host"), "check the connection"),
        (TimeoutError(), "check the connection"),
        (ValueError("Dataset things not found."), "look its name or number up"),
    ],
)
def test_openml_errors_are_one_sentence(monkeypatch, error, fix):
    def fetch(**_):
        raise error

    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    with pytest.raises(DataError, match=fix) as caught:
        load("openml:things")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="name or number"):
        load("openml:")
