"""From rows as they stand in a file to `Data`: split, code, scale."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from widthwise.data.base import Data, DataError
from widthwise.data.columns import MISSING, Column, kind_of
from widthwise.data.encoder import (
    ArrayEncoder,
    TableEncoder,
    as_floats,
    code,
    coded_names,
    feature_names,
)
from widthwise.data.numbers import fit_numbers, fit_pixels, listed
from widthwise.data.raw import Arrays, Table
from widthwise.data.split import check_counts, sizes, split, take
from widthwise.data.target import Target, read_target, standardise
from widthwise.lookup import UnknownName, find

NAMING_ROWS = 20  # from this many rows on, text that differs in all of them only names rows
SCALED = "Every column was standardised with the mean and standard deviation of the training rows."


class Asked(NamedTuple):
    """What the caller of `load` asked for."""

    target: str | Sequence[str] | None = None
    task: str | None = None
    train: int | None = None
    test: int | None = None
    seed: int = 0


def prepare_table(table: Table, asked: Asked) -> Data:
    """Codes named columns."""
    frame = table.frame.reset_index(drop=True)
    frame.columns = list(map(str, frame.columns))
    wanted, notes = _target_columns(table, asked.target, list(frame.columns))
    task = asked.task or (table.task if wanted == list(table.target) else None)
    target = read_target(frame.loc[:, wanted], task)
    train, test = sizes(len(target.kept), asked.train, asked.test, table.test)
    rows_train, rows_test = _split(target, target.kept, train, test, asked.seed)

    features = frame.drop(columns=wanted)
    if features.shape[1] == 0:
        raise DataError(
            f"{table.name} has no column besides the target {wanted[0]!r}: give features too, with "
            "commas, semicolons or tabs between cells."
        )
    columns, more = _columns(features, rows_train)
    coded, names = code(features, columns), coded_names(columns)
    if table.pixels:
        numbers, scaling = fit_pixels(coded[rows_train])
    else:
        numbers, scaling = fit_numbers(coded[rows_train], names)
        scaling = (*scaling, SCALED)
    x_train, x_test = (numbers.apply(coded[rows], names) for rows in (rows_train, rows_test))
    encoder = TableEncoder(columns, numbers)
    notes = (*table.notes, *notes, *target.notes, *more, *scaling)
    return _data(table.name, x_train, x_test, target, rows_train, rows_test, encoder, notes, wanted)


def prepare_arrays(arrays: Arrays, asked: Asked) -> Data:
    """Codes features without names."""
    if asked.target not in (None, "y"):
        raise DataError(
            f"target is {asked.target!r}, and the targets of {arrays.name} are its array y: leave "
            "target out."
        )
    check_counts(asked.train, asked.test)
    y = _target_frame(arrays.y, len(arrays.x), "x")
    if arrays.x_test is not None:
        y = pd.concat([y, _target_frame(arrays.y_test, len(arrays.x_test), "x_test")])
    target = read_target(y.reset_index(drop=True), asked.task or arrays.task, arrays.classes)
    rows_train, rows_test = _split_arrays(arrays, target, asked)

    # rows are chosen before they become float64: a subset of bytes is small
    x_train = as_floats(_flat(arrays.x)[rows_train])
    if arrays.x_test is None:
        x_test = as_floats(_flat(arrays.x)[rows_test])
    else:
        x_test = as_floats(_flat(arrays.x_test)[rows_test - len(arrays.x)])
        if x_test.shape[1] != x_train.shape[1]:
            raise DataError(
                f"{arrays.name} has {x_train.shape[1]} features for training and "
                f"{x_test.shape[1]} for testing: give the same ones."
            )
    names = feature_names(x_train.shape[1])
    pixels = arrays.pixels and bool(np.isfinite(x_train).all())
    numbers, scaling = fit_pixels(x_train) if pixels else fit_numbers(x_train, names)
    notes = (*arrays.notes, *target.notes, *scaling, *(() if pixels else (SCALED,)))
    x_train, x_test = numbers.apply(x_train, names), numbers.apply(x_test, names)
    encoder, outputs = ArrayEncoder(numbers), list(map(str, y.columns))
    return _data(
        arrays.name, x_train, x_test, target, rows_train, rows_test, encoder, notes, outputs
    )  # fmt: skip


def _target_columns(
    table: Table, asked: str | Sequence[str] | None, names: list[str]
) -> tuple[list[str], tuple[str, ...]]:
    if asked is None and table.target:
        return list(table.target), ()
    if asked is None:
        note = (
            f"The last column, {names[-1]!r}, is taken for the target; target='...' names another."
        )
        return [names[-1]], (note,)
    wanted = [asked] if isinstance(asked, str) else list(asked)
    if len(wanted) == 1 and wanted[0] not in names and "," in wanted[0]:
        wanted = [part.strip() for part in wanted[0].split(",")]
    return list(dict.fromkeys(_column(table.name, name, names) for name in wanted)), ()


def _column(table: str, wanted: str, names: list[str]) -> str:
    """The column of a name, in any case where no case fits."""
    if wanted in names:
        return wanted
    try:
        return find(wanted, {name: name for name in names}, "column")
    except UnknownName as error:
        near = str(error).partition("did you mean ")[2].rstrip("?")
        hint = f"did you mean {near}?" if near else f"its columns are {listed(names)}."
        raise DataError(f"{table} has no column {wanted!r} to be the target: {hint}") from None


def _columns(frame: pd.DataFrame, rows: np.ndarray) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The coding of each column, with the notes on it."""
    columns, notes = [], []
    kinds: dict[str, list[str]] = {"category": [], "date": [], "naming": [], "gaps": []}
    for name in frame.columns:
        cells = pd.Series(frame[name])
        kind = kind_of(cells)
        column = Column.fit(cells.iloc[rows], kind)
        if kind == "category" and _names_rows(cells):
            kinds["naming"].append(name)
            continue
        if kind != "number":
            kinds[kind].append(name)
        if kind == "category" and MISSING in column.levels and cells.isna().any():
            kinds["gaps"].append(name)
        columns.append(column)
    sentences = {
        "category": "Text in {} was coded one-hot, with the levels of the training rows.",
        "gaps": "Missing text in {} is a level of its own.",
        "date": "Dates in {} were turned into days since 1970.",
        "naming": "Text in {} was left out: it differs in every row and only names rows.",
    }
    notes = [sentence.format(listed(kinds[k])) for k, sentence in sentences.items() if kinds[k]]
    return tuple(columns), tuple(notes)


def _names_rows(cells: pd.Series) -> bool:
    return len(cells) >= NAMING_ROWS and bool(cells.is_unique)


def _split(target: Target, pool: np.ndarray, train: int, test: int, seed: int):
    """Rows of a pool, by class where there are classes."""
    labels = None if target.labels is None else target.labels[pool]
    first, second = split(len(pool), train, test, seed, labels)
    return pool[first], pool[second]


def _split_arrays(arrays: Arrays, target: Target, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and the test part; the latter are counted on from the former."""
    if arrays.x_test is None:
        train, test = sizes(len(target.kept), asked.train, asked.test)
        return _split(target, target.kept, train, test, asked.seed)
    chosen = []
    for part, count in (("training", asked.train), ("test", asked.test)):
        inside = target.kept < len(arrays.x)
        pool = target.kept[inside if part == "training" else ~inside]
        taken = take(len(pool), count, part)
        if taken == 0:
            raise DataError(f"{arrays.name} has no {part} rows with a target: give at least one.")
        rows = pool if count is None else _split(target, pool, taken, 0, asked.seed)[0]
        chosen.append(rows)
    return chosen[0], chosen[1]


def _target_frame(y: Any, rows: int, features: str) -> pd.DataFrame:
    if isinstance(y, pd.DataFrame | pd.Series):
        frame = pd.DataFrame(y).reset_index(drop=True)
    else:
        array = np.asarray(y)
        if array.ndim not in (1, 2):
            raise DataError(f"y has shape {array.shape}: give (n,) labels or numbers, or (n, k).")
        if array.dtype.kind == "S":
            array = array.astype(str)
        frame = pd.DataFrame(array)
        frame.columns = ["y"] if frame.shape[1] == 1 else list(frame.columns)
    if len(frame) != rows:
        raise DataError(
            f"{features} has {rows} rows and its targets {len(frame)}: give one for each."
        )
    return frame


def _flat(x: np.ndarray) -> np.ndarray:
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"The features have shape {x.shape}: give rows and columns, (n, d).")
    return x.reshape(len(x), -1)


def _data(name, x_train, x_test, target, rows_train, rows_test, encoder, notes, outputs) -> Data:
    y_train, y_test = target.values[rows_train], target.values[rows_test]
    k = y_train.shape[1]
    mean, scale = np.zeros(k), np.ones(k)
    if target.task == "regression":
        mean, scale = standardise(y_train, outputs)
        y_train, y_test = (y_train - mean) / scale, (y_test - mean) / scale
        units = (
            "Targets were standardised with the mean and standard deviation of the training rows."
        )
        notes = (*notes, units)
    elif len(rows_train) and len(np.unique(np.argmax(y_train, axis=1))) < 2:
        raise DataError("The training rows have only one class: use more of them.")
    return Data(
        x_train, y_train, x_test, y_test, target.task, target.classes, name, tuple(notes), encoder,
        mean, scale,
    )  # fmt: skip
