"""ARFF files, as Weka and OpenML write them.

SciPy's reader drops surplus cells silently and stumbles over quoted and non-ASCII levels, hence
this one; it reads dense numeric, nominal, string and date attributes.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from widthwise.data.base import DataError
from widthwise.data.columns import numbers
from widthwise.data.delimited import check_names, gaps_filled, read_text
from widthwise.data.raw import Table

QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
ATTRIBUTE = re.compile(rf"@attribute\s+({QUOTED}|[^\s{{]+)\s*(.+)", re.IGNORECASE)
CELL = re.compile(rf"\s*({QUOTED}|[^,]*?)\s*(,|$)")
NUMERIC = ("numeric", "real", "integer")


def read_arff(path: Path) -> Table:
    """Reads an ARFF file; nominal attributes become categories.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "toy.arff"
    >>> _ = path.write_text("@attribute 'a b' real\\n@attribute c {x,y}\\n@data\\n1,y\\n")
    >>> read_arff(path).frame["c"].tolist()
    ['y']

    Raises DataError for a file without attributes or rows, or with a row of another length.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    start = next((i for i, line in enumerate(lines) if line.lower().startswith("@data")), None)
    if start is None:
        raise DataError(
            f"{path} has no @data line: it is cut off or no ARFF file, so fetch it again."
        )
    attributes = _attributes(path, lines[:start])
    rows = []
    for line in lines[start + 1 :]:
        if line and not line.startswith("%"):
            rows.append(_cells(path, line, len(attributes), len(rows) + 1))
    if not rows:
        raise DataError(f"{path} has attributes and no rows: give at least two rows.")
    frame = gaps_filled(pd.DataFrame(rows, columns=list(attributes)))
    for name, kind in attributes.items():
        if kind.startswith("{"):
            frame[name] = _nominal(path, name, frame[name].to_numpy(dtype=object), kind)
        elif kind.lower().startswith(NUMERIC):
            frame[name] = numbers(pd.Series(frame[name]))
    return Table(path.name, frame)


def _attributes(path: Path, lines: list[str]) -> dict[str, str]:
    found = []
    for line in lines:
        if line.lower().startswith("@attribute"):
            match = ATTRIBUTE.fullmatch(line)
            if match is None:
                raise DataError(f"{path} has the attribute line {line!r}: write a name and a type.")
            found.append((_bare(match[1]), match[2].strip()))
    if not found:
        raise DataError(f"{path} has no @attribute lines: describe each column by one.")
    check_names(path, [name for name, _ in found])
    return dict(found)


def _cells(path: Path, line: str, width: int, row: int) -> list[str]:
    if line.startswith("{"):
        raise DataError(f"{path} is a sparse ARFF file: save it as a dense one, or as CSV.")
    cells = _parts(line)
    if len(cells) != width:
        raise DataError(
            f"{path} has {len(cells)} cells in row {row} of the data and {width} attributes: "
            "complete that row, or fetch the file again if it was cut off."
        )
    return cells


def _nominal(path: Path, name: str, cells: np.ndarray, kind: str) -> pd.Categorical:
    levels = _parts(kind.strip("{} \t"))
    for row, cell in enumerate(cells):
        if not pd.isna(cell) and cell not in levels:
            raise DataError(
                f"{path} has {cell!r} in row {row + 1} of column {name!r}, which is none of its "
                "levels: correct the cell, or add the level to the @attribute line."
            )
    return pd.Categorical(cells, categories=list(dict.fromkeys(levels)))


def _parts(line: str) -> list[str]:
    """What commas separate, outside quotation marks; stops where it makes no sense."""
    found, place = [], 0
    while (match := CELL.match(line, place)) is not None:
        found.append(_bare(match[1]))
        place = match.end()
        if not match[2]:
            break
    return found


def _bare(word: str) -> str:
    """Without quotation marks and the backslashes inside them."""
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    return word
