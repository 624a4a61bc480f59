"""What readers hand over: rows as they stand in a file, before anything is coded."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Named columns, the target's among them.

    >>> Table("toy", pd.DataFrame({"a": [1, 2], "b": [3, 4]}), target=("b",)).target
    ('b',)

    Args:
        name: of the data set.
        frame: one row an example, positions 0, 1, ... for index.
        target: columns that are targets unless asked otherwise; () is the last column.
        task: what the targets are; None guesses.
        pixels: whether all columns are brightnesses, which are scaled together.
        test: default number of test rows; None is a fifth.
        notes: sentences on what the reader did.
    """

    name: str
    frame: pd.DataFrame
    target: tuple[str, ...] = ()
    task: str | None = None
    pixels: bool = False
    test: int | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Features without names, (n, ...), and their targets, (n,) or (n, k).

    >>> Arrays("toy", np.zeros((3, 2)), np.array([0, 1, 0])).pixels
    False

    Args:
        name: of the data set.
        x, y: rows to learn from.
        x_test, y_test: rows to test on; None splits them off.
        task: what the targets are; None guesses.
        classes: names of the labels 0, 1, ...; () takes the labels themselves.
        pixels: whether all features are brightnesses, which are scaled together.
        notes: sentences on what the reader did.
    """

    name: str
    x: np.ndarray
    y: Any
    x_test: np.ndarray | None = None
    y_test: Any = None
    task: str | None = None
    classes: tuple[str, ...] = ()
    pixels: bool = False
    notes: tuple[str, ...] = ()


def word(value: Any) -> str:
    """A label in words: whole numbers without their point, so that 1, 1.0 and "1" are one class.

    >>> word(1.0), word("red"), word(2.5)
    ('1', 'red', '2.5')
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
