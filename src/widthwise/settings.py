"""Settings: refused when they are written, not when they are used; printed where not default."""

import dataclasses
import math
from numbers import Integral, Real
from typing import Any


def number(owner: Any, name: str, *, low: float = -math.inf, above: float | None = None) -> None:
    """Refuses a field that is not a finite number, at least `low` and, if given, over `above`.

    Arrays without axes pass unread: settings may be traced, where a gradient chooses them.

    Raises TypeError for what is no number, ValueError for a number out of range.
    """
    value, kind = getattr(owner, name), type(owner).__name__
    if not isinstance(value, Real) and getattr(value, "shape", None) == () and not _is_bool(value):
        return
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} of {kind} is {value!r}, which is no number: give a finite number.")
    found = float(value)
    if not math.isfinite(found) or found < low or (above is not None and found <= above):
        wanted = "" if low == -math.inf else f", at least {low:g}"
        wanted = wanted if above is None else f" over {above:g}"
        raise ValueError(f"{name} of {kind} is {value}: give a finite number{wanted}.")


def whole(owner: Any, name: str, *, low: int = 1) -> None:
    """Refuses a field that is not a whole number, at least `low`."""
    value, kind = getattr(owner, name), type(owner).__name__
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} of {kind} is {value!r}: give a whole number, at least {low}.")
    if value < low:
        raise ValueError(f"{name} of {kind} is {value}: give a whole number, at least {low}.")


def extents(owner: Any, name: str) -> None:
    """Refuses a field that is not a tuple of whole numbers, all at least 1."""
    value, kind = getattr(owner, name), type(owner).__name__
    wrong = not isinstance(value, tuple) or not value
    if wrong or any(not isinstance(n, Integral) or isinstance(n, bool) or n < 1 for n in value):
        raise ValueError(
            f"{name} of {kind} is {value!r}: give a tuple of whole numbers, at least 1 each."
        )


def one_of(owner: Any, name: str, known: tuple[str, ...]) -> None:
    """Refuses a field that is none of the known words."""
    value, kind = getattr(owner, name), type(owner).__name__
    if value not in known:
        raise ValueError(f"{name} of {kind} is {value!r}: give {' or '.join(map(repr, known))}.")


def is_number(value: Any) -> bool:
    """A finite real number, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_bool(value) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") == "b"


def shown(owner: Any) -> str:
    """The class with those fields that differ from their defaults.

    Equal values print alike, wherever they come from (a dataclass's own print tells a default
    from an equal number): what prints is a name, of logged layers and stored runs.
    """
    differing = []
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        plain = value is None or isinstance(value, Real | str | tuple | type(field.default))
        if not (value is field.default or (plain and value == field.default)):
            text = getattr(value, "__name__", None) or repr(value)
            differing.append(f"{field.name}={text}")
    return f"{type(owner).__name__}({', '.join(differing)})"
