"""Which reader a file name asks for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from widthwise.data.arff import read_arff
from widthwise.data.base import DataError
from widthwise.data.delimited import read_delimited
from widthwise.data.images import IDX, read_cifar_batch, read_idx
from widthwise.data.npz import read_npz, read_rows
from widthwise.data.parquet import read_parquet
from widthwise.data.raw import Arrays, Table

READERS: dict[str, Callable[[Path], Table | Arrays]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": read_parquet,
    ".arff": read_arff,
    ".npz": read_npz,
}


def reader_of(path: Path) -> Callable[[Path], Table | Arrays]:
    """The reader of a file's name: `reader_of(Path("rows.csv.gz"))` is `read_delimited`.

    Raises DataError for other endings.
    """
    suffix = _suffix(path)
    if suffix not in READERS or (path.suffix == ".gz" and suffix in (".parquet", ".npz")):
        raise DataError(
            f"{path} has no ending that is known: give a file in {', '.join(READERS)} or "
            ".csv.gz, or a folder of images."
        )
    return READERS[suffix]


def new_rows(source: Any) -> pd.DataFrame | np.ndarray:
    """Rows to predict: a table's columns, or features without names.

    Args:
        source: the path of a file, a data frame, or an array (m, ...).
    """
    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=True)
    if not isinstance(source, str | os.PathLike):
        return np.asarray(source)
    path = Path(source)
    if not path.is_file():
        raise DataError(f"There is no file {path}: give the path of a file of new rows.")
    if IDX.fullmatch(path.name):
        return read_idx(path)
    if path.suffix == ".bin":
        labels = 1 if path.stat().st_size % 3073 == 0 else 2
        return read_cifar_batch(path, labels)[1]
    if _suffix(path) == ".npz":
        return read_rows(path)
    found = reader_of(path)(path)
    assert isinstance(found, Table)
    return found.frame


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()
