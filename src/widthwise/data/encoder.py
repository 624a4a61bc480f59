"""Codings learnt from training rows, for new rows of the same format."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from widthwise.data.base import DataError
from widthwise.data.columns import Column
from widthwise.data.files import new_rows
from widthwise.data.numbers import Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class TableEncoder:
    """The coding of named columns: categories one-hot, then all of them filled and scaled.

    >>> from widthwise.data import load
    >>> encoder = load("iris").encoder
    >>> new = pd.DataFrame({column.name: [1.0, 2.0] for column in encoder.columns})
    >>> encoder.transform(new).shape
    (2, 4)
    """

    columns: tuple[Column, ...]
    numbers: Numbers

    def transform(self, source: Any) -> Float[np.ndarray, "m d"]:
        """Codes new rows as training rows were.

        Args:
            source: path of a file of any known format, a data frame, or an array whose columns
                are the features in their order; other columns are ignored.

        Raises DataError if a column is missing, or a cell cannot be coded.
        """
        rows = new_rows(source)
        wanted = [column.name for column in self.columns]
        if isinstance(rows, np.ndarray):
            rows = pd.DataFrame(_flat(rows, len(wanted)), columns=wanted)
        names = list(map(str, rows.columns))
        for name in wanted:
            if name not in names:
                others = [other for other in names if other not in wanted]
                near = difflib.get_close_matches(name, others, n=1)
                hint = f"is {near[0]!r} meant?" if near else "add it."
                raise DataError(f"The new rows lack the column {name!r}: {hint}")
        return self.numbers.apply(code(rows, self.columns), coded_names(self.columns))


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayEncoder:
    """The coding of features without names.

    >>> from widthwise.data import from_arrays
    >>> from_arrays([[1.0], [2.0], [3.0], [4.0]], [1.5, 2, 3, 4]).encoder.transform([[2.5]]).shape
    (1, 1)
    """

    numbers: Numbers

    def transform(self, source: Any) -> Float[np.ndarray, "m d"]:
        """Codes new rows as training rows were.

        Args:
            source: an array (m, ...), or the path of a file: NPZ with an array X, idx or CIFAR
                images, or a table of as many columns of numbers.

        Raises DataError for another number of features, and for text.
        """
        rows = new_rows(source)
        d = len(self.numbers.fill)
        if isinstance(rows, pd.DataFrame):
            columns = tuple(Column(str(name), "number") for name in rows.columns)
            rows = code(rows, columns)
        rows = _flat(rows, d)
        return self.numbers.apply(as_floats(rows), feature_names(d))


def code(frame: pd.DataFrame, columns: Sequence[Column]) -> Float[np.ndarray, "m p"]:
    """All columns as numbers, side by side, not yet filled or scaled."""
    where = {str(name): i for i, name in enumerate(frame.columns)}
    parts = [column.code(frame.iloc[:, where[column.name]]) for column in columns]
    return np.concatenate(parts, axis=1) if parts else np.empty((len(frame), 0))


def coded_names(columns: Sequence[Column]) -> list[str]:
    """Names of what `code` returns."""
    return [name for column in columns for name in column.names]


def feature_names(count: int) -> list[str]:
    """Names for features without any: their positions.

    >>> feature_names(2)
    ['0', '1']
    """
    return list(map(str, range(count)))


def as_floats(x: np.ndarray) -> Float[np.ndarray, "m d"]:
    """Rows as float64; DataError for text."""
    try:
        return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            "The features hold text or unequal rows: give an array of numbers, or a data frame."
        ) from None


def _flat(x: np.ndarray, wanted: int) -> np.ndarray:
    if x.ndim < 2:
        raise DataError(f"The new rows have shape {x.shape}: give rows of features, (m, {wanted}).")
    flat = x.reshape(len(x), -1) if x.size else x.reshape(len(x), wanted)
    if flat.shape[1] != wanted:
        raise DataError(
            f"The new rows have {flat.shape[1]} features and the training rows {wanted}: give the "
            "same ones."
        )
    return flat
