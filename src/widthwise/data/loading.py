"""One door for all of them: names, files, folders, openml.org, arrays."""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from widthwise.data import embedded
from widthwise.data.base import Data, DataError
from widthwise.data.delimited import check_names
from widthwise.data.files import reader_of
from widthwise.data.images import read_folder
from widthwise.data.openml import PREFIX, read_openml
from widthwise.data.prepare import Asked, prepare_arrays, prepare_table
from widthwise.data.raw import Arrays, Table
from widthwise.lookup import UnknownName, find


def load(
    source: str | os.PathLike | pd.DataFrame,
    *,
    target: str | Sequence[str] | None = None,
    task: str | None = None,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
) -> Data:
    """Reads a data set, splits it, and codes it for a network.

    >>> data = load("digits")
    >>> data.x_train.shape, data.x_test.shape, data.n_outputs
    ((1000, 64), (797, 64), 10)

    Args:
        source: a name of `names()`; the path of a file (CSV, TSV, ARFF, also .gz; Parquet; NPZ) or
            of a folder of images (idx, CIFAR binaries); "openml:NAME"; or a data frame.
        target: column of the target, or several; the last one unless given.
        task: "classification" or "regression"; guessed from the target unless given.
        train, test: numbers of rows; a fifth tests unless given. Classes keep their proportions.
        seed: of the split.

    Features are numbers as they are, words one-hot, dates days since 1970; each column is then
    standardised with the training rows, and pixels all together. `Data.notes` says what was done.
    Raises DataError, in one sentence, for what cannot be used.
    """
    asked = Asked(target, task, train, test, seed)
    found = _read(source, target)
    if isinstance(found, Table):
        return prepare_table(found, asked)
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        asked = asked._replace(target=None)  # the folder's reader has heard it
    return prepare_arrays(found, asked)


def from_arrays(
    X: Any,
    y: Any,
    *,
    task: str | None = None,
    test: int | None = None,
    seed: int = 0,
    name: str = "arrays",
) -> Data:
    """A data set of arrays in memory, split and coded as `load` does with a file.

    >>> data = from_arrays([[0.0], [1.0], [2.0], [3.0], [4.0]], ["a", "b", "a", "b", "a"])
    >>> data.classes, data.x_train.shape, data.x_test.shape
    (('a', 'b'), (4, 1), (1, 1))

    Args:
        X: (n, d), or (n, height, width, ...) images; a data frame may hold words and dates.
        y: (n,) labels or numbers, or (n, k) numbers or one-hot rows.
        task: guessed from y unless given.
        test: number of test rows; a fifth unless given.
        seed: of the split.
        name: as reports print it.

    Raises DataError for what cannot be used. `Data.of` takes arrays without any change.
    """
    asked = Asked(None, task, None, test, seed)
    if isinstance(X, pd.DataFrame):
        frame, targets = _joined(X, y)
        return prepare_table(Table(name, frame, targets), asked)
    try:
        x = np.asarray(X)
    except ValueError:
        raise DataError("X has rows of differing length: give an array (n, d).") from None
    return prepare_arrays(Arrays(name, x, y, pixels=x.ndim > 2 or x.dtype == np.uint8), asked)


def names() -> Iterator[tuple[str, str]]:
    """Names of the data sets that come with scikit-learn, each with a sentence on it.

    >>> dict(names())["iris"]
    'Measurements of iris flowers, 150 rows of 4 features in 3 classes.'
    """
    for name, read in _embedded().items():
        yield name, (inspect.getdoc(read) or "").splitlines()[0]


def _embedded() -> dict[str, Callable[[], Table]]:
    return {
        name: found
        for name, found in vars(embedded).items()
        if inspect.isfunction(found)
        and found.__module__ == embedded.__name__
        and not name.startswith("_")
    }


def _read(source: Any, target: Any) -> Table | Arrays:
    if isinstance(source, pd.DataFrame):
        check_names("The data frame", list(map(str, source.columns)))
        return Table("table", source)
    if not isinstance(source, str | os.PathLike):
        raise DataError(
            f"The source is a {type(source).__name__}: give a name or a path, or call from_arrays "
            "for arrays."
        )
    if isinstance(source, str):
        if source.startswith(PREFIX):
            return read_openml(source.removeprefix(PREFIX))
        if source.lower() in _embedded():
            return _embedded()[source.lower()]()
    path = Path(source)
    if path.is_dir():
        return read_folder(path, target)
    if path.is_file():
        return reader_of(path)(path)
    try:
        find(str(source), _embedded(), "data set")
    except UnknownName as error:
        raise DataError(
            f"No file or folder has the path {str(source)!r}, and t{str(error).removeprefix('T')}"
        ) from None
    raise DataError(f"No file or folder has the path {str(source)!r}: give one that is there.")


def _joined(X: pd.DataFrame, y: Any) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Features and targets side by side, the targets under names that no feature has."""
    targets = pd.DataFrame(y if isinstance(y, pd.DataFrame | pd.Series) else np.asarray(y))
    if len(targets) != len(X):
        raise DataError(f"X has {len(X)} rows and y {len(targets)}: give one target for each row.")
    taken = set(map(str, X.columns))
    labels = []
    for i, name in enumerate(targets.columns):
        label = str(name) if isinstance(name, str) else ("y" if targets.shape[1] == 1 else f"y{i}")
        while label in taken:
            label += "_"
        labels.append(label)
        taken.add(label)
    targets.columns = labels
    joined = pd.concat([X.reset_index(drop=True), targets.reset_index(drop=True)], axis=1)
    return joined, tuple(labels)
