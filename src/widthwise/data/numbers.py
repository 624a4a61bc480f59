"""Columns of numbers: gaps filled, constant columns dropped, the rest scaled.

The first kernel of a network is x.x' / d, so rows are scaled to |x|^2 / d of about 1.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from widthwise.data.base import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
    """Fills, selects, shifts and scales columns as the training rows asked for.

    >>> coding, notes = fit_numbers(np.array([[1.0, 5.0], [3.0, 5.0]]), ["a", "b"])
    >>> coding.apply(np.array([[np.nan, 5.0], [3.0, 6.0]]), ["a", "b"]).tolist()
    [[0.0], [1.0]]
    >>> notes
    ("Column 'b' was left out: it is constant in the training rows.",)
    """

    fill: Float[np.ndarray, " d"]
    keep: Int[np.ndarray, " p"]
    shift: Float[np.ndarray, " p"]
    scale: Float[np.ndarray, " p"]

    def apply(self, x: Float[np.ndarray, "m d"], names: Sequence[str]) -> Float[np.ndarray, "m p"]:
        """Coded rows; DataError for an infinite entry, naming its column and row."""
        refuse_infinite(x, names)
        x = x if len(self.keep) == x.shape[1] else x[:, self.keep]
        gaps = np.isnan(x)
        if gaps.any():
            x = np.where(gaps, self.fill[self.keep], x)
        out = x - self.shift
        out /= self.scale  # in place, as 50,000 images take a gigabyte
        return out


def fit_numbers(
    x: Float[np.ndarray, "n d"], names: Sequence[str]
) -> tuple[Numbers, tuple[str, ...]]:
    """Column by column, from training rows; with the notes on it.

    Raises DataError for infinite entries, and if no column varies.
    """
    refuse_infinite(x, names)
    gaps = np.isnan(x)
    holes = np.asarray(gaps.any(axis=0))
    fill = np.median(x, axis=0)  # new rows may have gaps where these have none
    for i in np.flatnonzero(holes):
        present = x[~gaps[:, i], i]
        fill[i] = np.median(present) if len(present) else 0.0
    filled = np.where(gaps, fill, x) if holes.any() else x
    varies = np.asarray(np.ptp(filled, axis=0) > 0)
    keep = np.flatnonzero(varies)
    if len(keep) == 0:
        raise DataError(
            "No column of features varies in the training rows: give a table with at least one "
            "such column besides the target."
        )
    filled = filled[:, keep]
    with np.errstate(over="ignore", invalid="ignore"):
        shift, scale = filled.mean(axis=0), filled.std(axis=0)
    for i, size in zip(keep.tolist(), scale, strict=True):
        if not (size > 0 and np.isfinite(size)):
            raise DataError(
                f"Column {names[i]!r} has standard deviation {size:g}, which cannot be scaled: "
                "write it in other units."
            )
    return Numbers(fill, keep, shift, scale), _notes(names, varies, holes)


def fit_pixels(x: Float[np.ndarray, "n d"]) -> tuple[Numbers, tuple[str, ...]]:
    """All columns together, so that dark pixels stay darker than bright ones."""
    shift, scale = x.mean(), x.std()
    if not (scale > 0 and np.isfinite(scale)):
        raise DataError("All pixels of the training rows are equal: give images that differ.")
    d = x.shape[1]
    note = (
        f"All pixels were shifted by {shift:.4g} and divided by {scale:.4g}, the mean and standard "
        "deviation of the training rows."
    )
    middle = np.full(d, shift)
    coding = Numbers(middle, np.arange(d), middle, np.full(d, scale))
    return coding, (note,)


def refuse_infinite(x: Float[np.ndarray, "m d"], names: Sequence[str]) -> None:
    """Names the first entry that is infinite; gaps (NaN) pass."""
    infinite = np.isinf(x)
    if infinite.any():
        row, column = np.argwhere(infinite)[0].tolist()
        raise DataError(
            f"Column {names[column]!r} is infinite in row {row + 1} of the data: correct that cell "
            "or leave it empty."
        )


def listed(names: Sequence[str]) -> str:
    """Up to five names for a note.

    >>> listed(["a", "b"]), listed(list("abcdefg"))
    ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name) for name in names[:5]) + more


def _notes(names: Sequence[str], varies: np.ndarray, holes: np.ndarray) -> tuple[str, ...]:
    notes = []
    flat = [names[i] for i in np.flatnonzero(~varies).tolist()]
    if flat:
        many = len(flat) > 1
        notes.append(
            f"Column{'s' * many} {listed(flat)} {'were' if many else 'was'} left out: "
            f"{'they are' if many else 'it is'} constant in the training rows."
        )
    filled = [names[i] for i in np.flatnonzero(holes & varies).tolist()]
    if filled:
        notes.append(
            f"Missing numbers in column{'s' * (len(filled) > 1)} {listed(filled)} were filled with "
            "the median of the training rows."
        )
    return tuple(notes)
