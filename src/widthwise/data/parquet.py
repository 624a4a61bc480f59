"""Parquet files."""

from pathlib import Path

from widthwise.data.base import DataError
from widthwise.data.delimited import check_names, without_row_numbers
from widthwise.data.raw import Table

INDEX = "__index_level_0__"  # what pandas calls an index without a name


def read_parquet(path: Path) -> Table:
    """Reads a Parquet file.

    >>> import tempfile, pandas
    >>> path = Path(tempfile.mkdtemp()) / "toy.parquet"
    >>> pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(path)
    >>> read_parquet(path).frame.shape
    (2, 2)

    Raises DataError for a file that is cut off, without rows, or with lists in its cells.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except OSError as error:
        if error.errno is not None:
            raise DataError(
                f"{path} cannot be read ({error.strerror}): check the path and its permissions."
            ) from None
        raise DataError(f"{path} is cut off or damaged: fetch or write it again.") from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"{path} is cut off or no Parquet file: fetch or write it again.") from None
    check_names(path, table.column_names)
    for field in table.schema:
        if pa.types.is_nested(field.type):
            raise DataError(
                f"Column {field.name!r} of {path} holds {field.type} cells: give one column for "
                "each number in them."
            )
    if table.num_rows == 0 or table.num_columns == 0:
        raise DataError(f"{path} has no rows: give at least two rows.")
    frame = table.to_pandas(ignore_metadata=True).drop(columns=INDEX, errors="ignore")
    return without_row_numbers(Table(path.name, frame))
