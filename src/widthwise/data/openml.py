"""Data sets of openml.org, fetched by scikit-learn, which keeps a copy."""

import warnings
from http.client import HTTPException
from typing import Any

import pandas as pd

from widthwise.data.base import DataError
from widthwise.data.raw import Table

PREFIX = "openml:"


def read_openml(wanted: str) -> Table:
    """Fetches `NAME` or a number from openml.org.

    Raises DataError, in one sentence, for whatever goes wrong on the way.
    """
    from sklearn import datasets

    if not wanted:
        raise DataError("No data set is named after 'openml:': give its name or number there.")
    which: dict[str, Any] = {"data_id": int(wanted)} if wanted.isdecimal() else {"name": wanted}
    fetch: Any = datasets.fetch_openml
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            bunch = fetch(**which, as_frame=True)
    except (OSError, HTTPException) as error:  # also urllib's errors and time-outs
        raise DataError(
            f"openml.org cannot be reached for {wanted!r} ({_brief(error)}): check the connection, "
            "or fetch the file elsewhere and name it."
        ) from None
    except (ValueError, KeyError, MemoryError) as error:
        raise DataError(
            f"openml.org has no usable data set {wanted!r} ({_brief(error)}): look its name or "
            "number up on openml.org."
        ) from None
    frame = pd.DataFrame(bunch.frame).reset_index(drop=True)
    names = tuple(map(str, bunch.target_names or ()))
    notes = tuple(
        _brief(warning.message) + "." for warning in told if warning.category is UserWarning
    )
    return Table(f"{PREFIX}{wanted}", frame, names, notes=notes)


def _brief(error: object) -> str:
    """The first sentence of a message, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
