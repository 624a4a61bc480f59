"""NumPy's NPZ files: features and targets as arrays, or one table with names."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from widthwise.data.base import DataError
from widthwise.data.raw import Arrays, Table

LOOKED_FOR = (
    "x_train, y_train, x_test, y_test; or X, y; or one structured array; or one array a column"
)


def read_npz(path: Path) -> Table | Arrays:
    """Reads an NPZ file, whose array names are taken in any case.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "toy.npz"
    >>> np.savez(path, X=np.zeros((3, 2)), y=np.arange(3))
    >>> read_npz(path).x.shape
    (3, 2)

    Images, (n, height, width) or bytes, are pixels. Raises DataError for other arrays.
    """
    found = read_arrays(path)
    by_lower = {name.lower(): array for name, array in found.items()}
    if {"x_train", "y_train"} <= set(by_lower):
        x, y = by_lower["x_train"], by_lower["y_train"]
        x_test, y_test = by_lower.get("x_test"), by_lower.get("y_test")
        if (x_test is None) != (y_test is None):
            raise DataError(f"{path} has only one of x_test and y_test: give both or neither.")
        return Arrays(path.name, x, y, x_test, y_test, pixels=_images(x))
    if {"x", "y"} <= set(by_lower):
        return Arrays(path.name, by_lower["x"], by_lower["y"], pixels=_images(by_lower["x"]))
    frame = _frame(found)
    if frame is None:
        raise DataError(
            f"{path} has the arrays {', '.join(found) or 'none'}, and looked for are {LOOKED_FOR}: "
            "rename them."
        )
    if len(frame) == 0:
        raise DataError(f"{path} has columns and no rows: give at least two rows.")
    return Table(path.name, frame)


def read_rows(path: Path) -> Any:
    """Features to predict: the array X, x_test or the only one, or a table."""
    found = read_arrays(path)
    by_lower = {name.lower(): array for name, array in found.items()}
    for name in ("x", "x_test"):
        if name in by_lower and by_lower[name].ndim > 1:
            return by_lower[name]
    frame = _frame(found)
    if frame is not None:
        return frame
    if len(found) == 1:
        return next(iter(found.values()))
    raise DataError(f"{path} has the arrays {', '.join(found)}: call the features X.")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file; DataError if it is cut off or holds Python objects."""
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        if error.errno is not None:
            raise DataError(
                f"{path} cannot be read ({error.strerror}): check the path and its permissions."
            ) from None
        raise _damaged(path) from None
    except ValueError as error:
        if "pickle" in str(error) and zipfile.is_zipfile(path):
            raise DataError(
                f"{path} holds Python objects: save its arrays with a type of numbers or of text."
            ) from None
        raise _damaged(path) from None
    except (zipfile.BadZipFile, EOFError, AttributeError, TypeError, KeyError):
        raise _damaged(path) from None


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is cut off or no NPZ file: write it again with numpy.savez.")


def _images(x: np.ndarray) -> bool:
    return x.ndim > 2 or x.dtype == np.uint8


def _frame(found: dict[str, np.ndarray]) -> pd.DataFrame | None:
    """A table, if the arrays are one."""
    if len(found) == 1 and (array := next(iter(found.values()))).dtype.names:
        return pd.DataFrame({name: array[name] for name in array.dtype.names})
    if (
        found
        and all(a.ndim == 1 for a in found.values())
        and len(set(map(len, found.values()))) == 1
    ):
        return pd.DataFrame(found)
    return None
