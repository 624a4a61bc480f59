"""One column of a table at a time: what kind it is, and its cells as numbers."""

import dataclasses
import numbers as abstract
import re
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from widthwise.data.base import DataError
from widthwise.data.raw import word

Kind = Literal["number", "date", "category"]

MAX_LEVELS = 100
MOSTLY = 0.8  # a column with more of its cells numbers than this was meant to be one of numbers
MISSING = "missing"
TRUTH = {"true": 1.0, "false": 0.0}
ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
DAY = pd.Timedelta(days=1)
SIMPLE = ("string", "boolean", "integer", "floating", "mixed-integer-float", "decimal", "empty")


@dataclasses.dataclass(frozen=True)
class Column:
    """How a column is coded: a number as itself, a category as one column for each level.

    >>> Column("colour", "category", ("blue", "red")).code(pd.Series(["red", "green"])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()

    @classmethod
    def fit(cls, cells: pd.Series, kind: Kind) -> "Column":
        """The coding of the training rows' cells; DataError for too many levels."""
        name = str(cells.name)
        if kind != "category":
            return cls(name, kind)
        levels = tuple(sorted(set(_words(cells))))
        if len(levels) > MAX_LEVELS:
            raise DataError(
                f"Column {name!r} is text with {len(levels)} distinct values, and at most "
                f"{MAX_LEVELS} can be coded: delete the column, group its values, or write them as "
                "numbers."
            )
        return cls(name, kind, levels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coded columns."""
        return tuple(f"{self.name}={level}" for level in self.levels) or (self.name,)

    def code(self, cells: pd.Series) -> Float[np.ndarray, "m levels"]:
        """Cells as numbers, NaN where a number is missing; levels never seen are all zeros."""
        if self.kind == "category":
            return (_words(cells)[:, None] == np.array(self.levels, dtype=object)).astype(float)
        return (dates(cells) if self.kind == "date" else numbers(cells))[:, None]


def kind_of(cells: pd.Series) -> Kind:
    """What a column holds.

    >>> kind_of(pd.Series(["1", "2.5"])), kind_of(pd.Series(["a", "b"]))
    ('number', 'category')

    Raises DataError for text among numbers, and for cells that are no numbers, words or dates.
    """
    if isinstance(cells.dtype, pd.CategoricalDtype):
        return "category"
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return "date"
    if pd.api.types.is_numeric_dtype(cells.dtype) and not pd.api.types.is_complex_dtype(
        cells.dtype
    ):
        return "number"
    found = pd.api.types.infer_dtype(cells, skipna=True)
    if found in ("date", "datetime", "datetime64"):
        return "date"
    if found not in SIMPLE:
        _refuse_odd(cells)
    present = cells.notna().to_numpy()
    a_number = ~np.isnan(_parsed(cells))
    if a_number[present].all():
        return "number"
    a_date = np.array([bool(ISO.match(str(value))) for value in cells], dtype=bool)
    if a_date[present].all():
        return "date"
    for fits, what in ((a_number, "number"), (a_date, "date")):
        if fits[present].mean() > MOSTLY:
            raise _stray(cells, int(np.argmax(present & ~fits)), what)
    return "category"


def is_truth(cells: pd.Series) -> bool:
    """Whether cells are true or false, also as words."""
    if pd.api.types.is_bool_dtype(cells.dtype):
        return True
    words = {str(value).strip().lower() for value in cells.dropna().unique()}
    return bool(words) and words <= set(TRUTH)


def numbers(cells: pd.Series) -> Float[np.ndarray, " m"]:
    """Cells as float64, NaN where missing; true is 1 and false 0.

    >>> numbers(pd.Series(["1.5", None, "true"])).tolist()
    [1.5, nan, 1.0]

    Raises DataError for any other text, naming the column, the row and the text.
    """
    parsed = _parsed(cells)
    stray = np.isnan(parsed) & cells.notna().to_numpy()
    if stray.any():
        raise _stray(cells, int(np.argmax(stray)), "number")
    return parsed


def dates(cells: pd.Series) -> Float[np.ndarray, " m"]:
    """Dates, as such or in words like 2024-05-31, as days since 1970; NaN where missing.

    >>> dates(pd.Series(["1970-01-02", None])).tolist()
    [1.0, nan]
    """
    found = pd.DatetimeIndex(pd.to_datetime(cells, errors="coerce", utc=True, format="ISO8601"))
    gaps = np.asarray(found.isna())
    stray = gaps & cells.notna().to_numpy()
    if stray.any():
        raise _stray(cells, int(np.argmax(stray)), "date")
    days = np.asarray((found - pd.Timestamp(0, tz="UTC")) / DAY, dtype=np.float64)
    return np.where(gaps, np.nan, days)


def _parsed(cells: pd.Series) -> Float[np.ndarray, " m"]:
    """Cells as numbers, NaN where they are none."""
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return cells.to_numpy(dtype=np.float64, na_value=np.nan)
    plain = cells.to_numpy(dtype=object)
    found = np.array(pd.to_numeric(pd.Series(plain, dtype=object), errors="coerce"), dtype=float)
    for i in np.flatnonzero(np.isnan(found)):
        found[i] = TRUTH.get(str(plain[i]).lower(), np.nan)
    return found


def _words(cells: pd.Series) -> np.ndarray:
    """Cells as words; a missing one is a level of its own."""
    gaps = cells.isna().to_numpy()
    found = [MISSING if gap else word(x) for x, gap in zip(cells, gaps, strict=True)]
    return np.array(found, dtype=object)


def _refuse_odd(cells: pd.Series) -> None:
    for value in cells.dropna():
        if not isinstance(value, str | abstract.Real):
            raise DataError(
                f"Column {str(cells.name)!r} holds {type(value).__name__} cells: give numbers, "
                "words or dates."
            )


def _stray(cells: pd.Series, row: int, what: str) -> DataError:
    at = cells.index.to_numpy()[row]  # rows without a target are skipped, but counted
    return DataError(
        f"Column {str(cells.name)!r} has {str(cells.iloc[row])!r} in row {at + 1} of the data, "
        f"where a {what} is wanted: correct that cell or leave it empty."
    )
