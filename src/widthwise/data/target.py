"""The target: which task it poses, which rows have one, and how it is coded."""

import dataclasses

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from widthwise.data.base import DataError, check_task
from widthwise.data.columns import dates, is_truth, kind_of, numbers
from widthwise.data.raw import word

MAX_CLASSES = 20  # whole numbers with more values than this are guessed to be quantities


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Targets of all rows; those of rows not `kept` are missing and mean nothing.

    >>> found = read_target(pd.DataFrame({"y": ["b", "a", None]}), None)
    >>> found.task, found.classes, found.kept.tolist()
    ('classification', ('a', 'b'), [0, 1])
    """

    task: str
    values: Float[np.ndarray, "n k"]
    labels: Int[np.ndarray, " n"] | None  # of classes only
    classes: tuple[str, ...]
    kept: Int[np.ndarray, " q"]
    notes: tuple[str, ...]


def read_target(frame: pd.DataFrame, task: str | None, classes: tuple[str, ...] = ()) -> Target:
    """Reads target columns.

    >>> read_target(pd.DataFrame({"price": [1.5, 2.5, 4.0]}), None).task
    'regression'

    Args:
        frame: one column for each target; several are a regression, or one-hot classes.
        task: None guesses, and a note says what.
        classes: names of the labels 0, 1, ...

    Raises DataError for a target that is constant, infinite, or text where numbers are wanted.
    """
    check_task(task)
    kept = np.flatnonzero(frame.notna().all(axis=1).to_numpy())
    notes = []
    if len(kept) < len(frame):
        notes.append(f"{_rows(len(frame) - len(kept))} dropped, as the target is missing there.")
    if len(kept) < 2:
        raise DataError(
            f"The target {_named(frame)} has values in {len(kept)} rows, and at least 2 are "
            "needed: give more rows or choose another column."
        )
    present = frame.iloc[kept]
    if task is None:
        task, why = _guess(present)
        other = "regression" if task == "classification" else "classification"
        notes.append(f"The task is guessed to be {task}, as {why}; task='{other}' overrules it.")
    if task == "classification":
        labels, found = _labels(frame, kept, classes)
        return Target(task, np.eye(len(found))[labels], labels, found, kept, tuple(notes))
    return Target(task, _values(frame, kept), None, (), kept, tuple(notes))


def _guess(frame: pd.DataFrame) -> tuple[str, str]:
    """The task of targets without gaps, and why."""
    if frame.shape[1] > 1:
        if _one_hot(frame):
            return "classification", f"the target's {frame.shape[1]} columns are one-hot"
        return "regression", f"there are {frame.shape[1]} target columns"
    cells = frame.iloc[:, 0]
    if isinstance(cells.dtype, pd.CategoricalDtype):
        return "classification", "the target is a category"
    if is_truth(cells):
        return "classification", "the target is true or false"
    kind = kind_of(cells)
    if kind == "category":
        return "classification", "the target is text"
    values = dates(cells) if kind == "date" else numbers(cells)
    distinct = len(np.unique(values))
    if not np.all(values == np.floor(values)):  # infinity passes; it is refused by name later
        return "regression", "the target has fractions"
    if distinct <= MAX_CLASSES and 2 * distinct < len(values):
        return "classification", f"the target has {distinct} distinct whole numbers"
    return "regression", f"the target has {distinct} distinct numbers in {len(values)} rows"


def _one_hot(frame: pd.DataFrame) -> bool:
    if not all(pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes):
        return False
    values = frame.to_numpy(dtype=np.float64)
    return bool(np.isin(values, (0.0, 1.0)).all() and (values.sum(axis=1) == 1).all())


def _labels(
    frame: pd.DataFrame, kept: np.ndarray, classes: tuple[str, ...]
) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    if frame.shape[1] > 1:
        if not _one_hot(frame.iloc[kept]):
            raise DataError(
                f"The target {_named(frame)} has {frame.shape[1]} columns that are not one-hot: "
                "give one column of labels, or task='regression'."
            )
        names = tuple(map(word, frame.columns)) if not classes else classes
        return np.argmax(frame.fillna(0).to_numpy(dtype=np.float64), axis=1), names
    words = np.array([word(value) for value in frame.iloc[kept, 0]], dtype=object)
    found, inverse = np.unique(words, return_inverse=True)
    order = sorted(range(len(found)), key=lambda i: _rank(found[i]))
    rank = np.empty(len(found), dtype=int)
    rank[order] = np.arange(len(found))
    names = tuple(str(found[i]) for i in order)
    _check_classes(names, len(kept), frame)
    if classes:
        named = dict(zip(map(str, range(len(classes))), classes, strict=True))
        names = tuple(named.get(name, name) for name in names)
    labels = np.zeros(len(frame), dtype=int)
    labels[kept] = rank[inverse]
    return labels, names


def _check_classes(names: tuple[str, ...], rows: int, frame: pd.DataFrame) -> None:
    if len(names) < 2:
        raise DataError(
            f"The target {_named(frame)} has only one class, {', '.join(names)!r}: choose another "
            "column, or give rows of at least 2 classes."
        )
    if len(names) > MAX_CLASSES and 2 * len(names) > rows:
        raise DataError(
            f"The target {_named(frame)} has {len(names)} distinct values in {rows} rows, too many "
            "to be classes: choose another column, or task='regression' if they are numbers."
        )


def _rank(name: str) -> tuple[int, float, str]:
    """Numbers in their order, then words in theirs."""
    try:
        value = float(name)
    except ValueError:
        return 1, 0.0, name
    return (0, value, name) if np.isfinite(value) else (1, 0.0, name)


def _values(frame: pd.DataFrame, kept: np.ndarray) -> Float[np.ndarray, "n k"]:
    values = np.zeros(frame.shape)
    for i, name in enumerate(frame.columns):
        cells = frame.iloc[kept, i]
        kind = kind_of(cells)
        if kind == "category":
            raise DataError(
                f"The target {name!r} is text, for example {str(cells.iloc[0])!r}, and regression "
                "wants numbers: leave task out, or choose another column."
            )
        values[kept, i] = dates(cells) if kind == "date" else numbers(cells)
        bad = np.flatnonzero(~np.isfinite(values[:, i]))
        if len(bad):
            raise DataError(
                f"The target {name!r} is infinite in row {bad[0] + 1} of the data: correct or drop "
                "that row."
            )
        if np.ptp(values[kept, i]) == 0:
            raise DataError(
                f"The target {name!r} is {values[kept[0], i]:g} in every row: there is nothing to "
                "learn, so choose another column."
            )
    return values


def standardise(
    values: Float[np.ndarray, "n k"], names: list[str]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Mean and standard deviation of the training rows' targets.

    >>> standardise(np.array([[1.0], [3.0]]), ["price"])
    (array([2.]), array([1.]))

    Raises DataError if a target does not vary in them.
    """
    with np.errstate(over="ignore"):
        mean, scale = values.mean(axis=0), values.std(axis=0)
    for name, size in zip(names, scale, strict=True):
        if not (size > 0 and np.isfinite(size)):
            raise DataError(
                f"The target {name!r} has standard deviation {size:g} in the training rows: use "
                "more of them, another seed, or other units."
            )
    return mean, scale


def _named(frame: pd.DataFrame) -> str:
    return ", ".join(repr(str(name)) for name in frame.columns)


def _rows(count: int) -> str:
    return f"{count:,} row was" if count == 1 else f"{count:,} rows were"
