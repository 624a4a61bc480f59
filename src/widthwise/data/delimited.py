"""CSV and TSV files, plain or gzipped: every cell as text, every row of the same length."""

import csv
import dataclasses
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from widthwise.data.base import DataError
from widthwise.data.raw import Table

GAPS = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A", "n/a")
ROW_NUMBERS = ("", "index", "unnamed: 0")  # columns that programs add when they write a table


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if its name ends in .gz; DataError if it cannot be had."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is cut off or no gzip file: fetch or pack it again.") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): check the path and its permissions."
        ) from None


def read_text(path: Path) -> str:
    """The text of a file; DataError if it is empty or not UTF-8."""
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path} is not UTF-8 text (line {line}): save it as UTF-8.") from None
    if not text.strip():
        raise DataError(f"{path} is empty: give a file with column names and rows.")
    return text


def read_delimited(path: Path) -> Table:
    """Reads a CSV or TSV file whose first line names the columns.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "toy.csv"
    >>> _ = path.write_text("a,b\\n1,x\\n2,?\\n")
    >>> read_delimited(path).frame["b"].isna().tolist()
    [False, True]

    Semicolons separate where the first line has no comma. Raises DataError for a file without
    rows, with rows of differing length, with names twice, or with numbers for names.
    """
    text = read_text(path)
    first = next(line for line in text.splitlines() if line.strip())
    delimiter = _delimiter(first, tsv=".tsv" in path.suffixes)
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    rows = _rows(path, text, delimiter, len(names))
    if len(rows) == 0:
        raise DataError(f"{path} has column names and no rows: give at least two rows.")
    check_names(path, names)
    _check_header(path, names)
    frame = gaps_filled(rows)
    frame.columns = names
    return without_row_numbers(Table(path.name, frame))


def _delimiter(line: str, tsv: bool) -> str:
    if tsv:
        return "\t"
    return next((mark for mark in (",", ";", "\t") if mark in line), ",")


def _rows(path: Path, text: str, delimiter: str, width: int) -> pd.DataFrame:
    """Cells as text, without the header."""
    import pyarrow as pa
    import pyarrow.csv as pc

    uneven: list[Any] = []
    ids = [str(i) for i in range(width)]

    def note(row: Any) -> str:
        uneven.append((row.number, row.actual_columns))
        return "skip"

    try:
        table = pc.read_csv(
            io.BytesIO(text.encode()),
            # one thread, as only then rows are numbered
            pc.ReadOptions(column_names=ids, use_threads=False),
            pc.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
            pc.ConvertOptions(column_types={i: pa.string() for i in ids}),
        )
    except pa.ArrowInvalid:
        raise DataError(
            f"{path} cannot be read as a table: save it again as CSV with commas between cells."
        ) from None
    if uneven:
        row, found = uneven[0]
        raise DataError(
            f"{path} has {found} cells in row {row - 1} of the data and {width} column names: "
            "complete that row, or fetch the file again if it was cut off."
        )
    frame = table.to_pandas().iloc[1:].reset_index(drop=True)
    if len(frame) and str(frame.iloc[-1, -1]).endswith("\n"):
        raise DataError(f"{path} ends inside a quoted cell: it was cut off, so fetch it again.")
    return frame


def check_names(path: Path | str, names: Sequence[str]) -> None:
    """Refuses names that occur twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} has two columns called {twice[0]!r}: rename one of them.")


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Refuses a first line of numbers, unless it counts columns as a data frame does."""
    try:
        values = [float(name) for name in names]
    except ValueError:
        return
    if values != list(range(len(names))):
        raise DataError(
            f"The first line of {path} holds numbers ({', '.join(names[:3])}, ...): put a line "
            "with the names of the columns before it."
        )


def gaps_filled(frame: pd.DataFrame) -> pd.DataFrame:
    """Text cells without spaces around them, and None for the usual marks of a missing one."""
    import pyarrow as pa
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made while it is imported

    gaps, cells = pa.array(GAPS), {}
    for i in range(frame.shape[1]):
        column = compute.utf8_trim_whitespace(pa.array(frame.iloc[:, i], type=pa.string()))
        cells[i] = compute.if_else(compute.is_in(column, value_set=gaps), None, column)
    found = pa.table({str(i): column for i, column in cells.items()}).to_pandas()
    found.columns = frame.columns
    return found


def without_row_numbers(table: Table) -> Table:
    """Leaves out a first column in which a program numbered the rows."""
    first = str(table.frame.columns[0])
    if first.lower() not in ROW_NUMBERS or table.frame.shape[1] < 2:
        return table
    found = np.asarray(pd.to_numeric(table.frame.iloc[:, 0], errors="coerce"), dtype=float)
    if not (np.diff(found) == 1).all():
        return table
    note = f"Column {first!r} was left out: it numbers the rows."
    return dataclasses.replace(table, frame=table.frame.iloc[:, 1:], notes=(*table.notes, note))
