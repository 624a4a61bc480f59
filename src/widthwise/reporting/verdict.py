"""The verdict that a page begins with: which limit describes the network, from which width on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from widthwise.measure.base import label
from widthwise.measure.consistency import rounded

FALLEN = 0.7  # of the narrowest width's gap, below which an unresolved law counts as an approach


def headline(
    measured: Sequence[tuple[Any, Mapping[str, Any]]], families: Sequence[Any]
) -> tuple[str, ...]:
    """One or two sentences for each family with finite widths.

    >>> headline([(runs, {"Consistency": finding})], [runs])  # doctest: +SKIP
    ('Under NTK scaling with GradientDescent, the network is described by its limit, ...',)

    Args:
        measured: families with finite widths, each with its findings by instrument.
        families: all of them, for what can be said where none has finite widths.
    """
    if not measured:
        return tuple(f"{_under(runs.family)} no finite width was trained." for runs in families)
    lines = []
    for runs, findings in measured:
        under, consistency = _under(runs.family), findings.get("Consistency")
        if consistency is None or (runs.limit and "gaps" not in consistency.numbers):
            lines.append(f"{under}: {consistency or 'finite widths were trained.'}")
        elif runs.limit is None:
            moved = findings.get("FeatureMovement")
            unknown = any(cell.width == math.inf for cell in runs.open_cells)
            why = "the limit is still an open cell." if unknown else "infinity was not trained."
            told = f"{under} {why} {moved or consistency}"
            lines.append(told + _among_themselves(consistency.numbers))
        else:
            lines.append(f"{under} {_held_against(runs, consistency.numbers)}")
    return tuple(lines)


def _among_themselves(numbers: Mapping[str, Any]) -> str:
    """How near the two widest members are, where there is no limit to hold them against."""
    if "widest" not in numbers:
        return ""
    narrow, wide = numbers["widest"]
    return f" Test predictions at width {narrow} are within {numbers['gap']:.0%} of width {wide}."


def _under(family: Any) -> str:
    return f"Under {label(family.scaling)} scaling with {label(family.learner)},"


def _held_against(runs: Any, numbers: Mapping[str, Any]) -> str:
    """From which width on the limit describes the network, or how far off the widest is."""
    limit, tolerance = runs.limit.limit, numbers["tolerance"]
    gaps = [sum(row) / len(row) for row in numbers["gaps"]]
    enough = None
    for width, gap in zip(reversed(runs.widths), reversed(gaps), strict=True):
        if not gap <= tolerance:
            break
        enough = width
    if enough is not None:
        return (
            f"the network is described by its limit, {limit}, from width {enough} on: test "
            f"predictions are within {tolerance:.0%} of it."
        )
    wanted = numbers.get("width_for_tolerance")
    away = f"test predictions are {gaps[-1]:.0%} away from it (tolerance {tolerance:.0%})"
    if wanted is None and gaps[-1] > FALLEN * gaps[0]:
        return (
            f"it is not resolved whether the network approaches its limit, {limit}: at width "
            f"{runs.widths[-1]} {away}, at width {runs.widths[0]} they are {gaps[0]:.0%}."
        )
    told = (
        f"the network approaches its limit, {limit}, but no trained width is wide enough: at width "
        f"{runs.widths[-1]} {away}."
    )
    if wanted is None or not math.isfinite(wanted) or wanted > 1e9:
        return told
    return f"{told} Extrapolated, width {rounded(wanted)} would be."
