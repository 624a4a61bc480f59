"""How far members of finite width are from infinity, and how the gap shrinks."""

import math
from typing import Any, ClassVar

import numpy as np

from widthwise.measure.base import AbstractInstrument, Finding, Panel, Series, Table, titled
from widthwise.measure.gaps import (
    ensemble_gaps,
    final,
    gaps_of,
    mean_in_standard_errors,
    relative,
)
from widthwise.measure.power import PowerLaw, fit_power, fit_statistic

OPEN = "The limit of this family is an open cell"
NOT_ASKED = "Infinite width was not trained"
COLUMNS = (
    "width", "gap of predictions", "standard error", "gap of the test loss",
    "gap of the ensemble's mean", "gap of the ensemble's std", "gap of the NNGP kernel at start",
)  # fmt: skip


class Consistency(AbstractInstrument):
    """Gap of predictions, losses and kernels to the infinite-width member, against width.

    >>> print(Consistency()(runs))  # doctest: +SKIP
    Test predictions at width 1024 are within 16 % (rms, 4 seeds) of their limit; ...

    Every finite run is held against the limit started from that run's own initial function. Gaps
    are rms over test points and outputs, relative to the rms of the limit's predictions. Exponents
    come with the half-width of their 95 % interval, or as "not resolved" with the reason.

    Args:
        tolerance: the relative gap that counts as agreement.
    """

    source: ClassVar[str] = "vyas2023, section 3; lee2019, Theorem 2.1"
    tolerance: float = 0.1

    def __check_init__(self):
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance is {self.tolerance}: give a positive number such as 0.1.")

    def __call__(self, runs) -> Finding:
        if not runs.widths:
            sentence = "No finite width was trained: there is nothing to compare."
            return Finding("Consistency", titled("Consistency", runs), sentence, {}, Table((), ()))
        if runs.limit is None:
            return _against_widest(runs, self)
        return _against_limit(runs, self)


def _against_limit(runs, instrument: Consistency) -> Finding:
    widths, tolerance = np.array(runs.widths, dtype=float), instrument.tolerance
    gaps, ensemble = gaps_of(runs), ensemble_gaps(runs)
    laws = {
        "predictions": fit_power(widths, gaps.predictions),
        "ensemble mean": fit_statistic(widths, ensemble.mean, ensemble.mean_without),
        "ensemble std": fit_statistic(widths, ensemble.std, ensemble.std_without),
        "NNGP kernel at start": fit_power(widths, gaps.kernels),
        "test loss": fit_power(widths, np.abs(gaps.losses)),
    }
    law, widest = laws["predictions"], int(widths[-1])
    seeds = gaps.predictions.shape[1]
    off = mean_in_standard_errors(runs, widest)
    others = "; ".join(f"{name}, {laws[name]}" for name in list(laws)[1:4])
    sentence = (
        f"Test predictions at width {widest} are within {gaps.predictions[-1].mean():.1%} (rms, "
        f"{seeds} seed{'s' * (seeds > 1)}) of their limit; the gap's exponent: {law}. "
        f"{_enough(law, tolerance, runs.widths, gaps.predictions.mean(axis=1))} "
        f"Other gaps: {others}."
    )
    if off is not None:
        sentence += f" The mean over seeds is {off:.1f} standard errors from the limit's mean."
    columns = (
        runs.widths, gaps.predictions.mean(1), [_error(g) for g in gaps.predictions],
        gaps.losses.mean(1), ensemble.mean, ensemble.std, gaps.kernels.mean(1),
    )  # fmt: skip
    rows = tuple((row[0], *map(float, row[1:])) for row in zip(*columns, strict=True))
    numbers = {
        "exponents": {name: found.to_json() for name, found in laws.items()},
        "tolerance": tolerance,
        "width_for_tolerance": law.width_for(tolerance) if law.resolved else None,
        "gaps": gaps.predictions.tolist(),
        "ensemble_mean_in_standard_errors": off,
    }
    panels = (
        _panel("Test predictions", widths, gaps.predictions, law, tolerance),
        _panel("NNGP kernel at the start", widths, gaps.kernels, laws["NNGP kernel at start"]),
        *_over_time(runs),
    )
    title = titled("Consistency", runs)
    return Finding(
        "Consistency", title, sentence, numbers, Table(COLUMNS, rows), panels, (instrument.source,)
    )


def _error(values) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _enough(law: PowerLaw, tolerance: float, widths, means) -> str:
    reached = [w for w, gap in zip(widths, means, strict=True) if gap <= tolerance]
    if reached:
        return f"Width {reached[0]} is the first trained width within {tolerance:.0%}."
    if not law.resolved:
        return f"No trained width is within {tolerance:.0%}."
    width = rounded(law.width_for(tolerance))
    return f"No trained width is within {tolerance:.0%}; extrapolated, width {width} would be."


def rounded(width: float) -> str:
    """A width that was extrapolated, to two digits.

    >>> rounded(4044.2)
    'about 4,000'
    """
    if not width < 1e9:
        return "beyond 1e9"
    digits = max(0, int(math.floor(math.log10(width))) - 1)
    return f"about {int(round(width, -digits)):,}"


def _panel(
    title: str, widths, gaps, law: PowerLaw, tolerance: float | None = None, to: str = "the limit"
) -> Panel:
    x = tuple(float(w) for w in widths)
    mean, error = gaps.mean(axis=1), np.array([_error(g) for g in gaps])
    error = np.where(np.isfinite(error), error, 0.0)
    series = [
        Series("measured", x, tuple(mean), tuple(mean - error), tuple(mean + error), "points")
    ]
    if math.isfinite(law.exponent):
        label = str(law) if law.resolved else "fit, not resolved"
        series.append(Series(label, x, tuple(law.at(x)), style="line"))
    half = mean[0] * (np.array(x) / x[0]) ** -0.5
    series.append(Series("slope −1/2", x, tuple(half), style="dashed"))
    if tolerance is not None:
        level = (tolerance,) * len(x)
        series.append(Series(f"tolerance {tolerance:.0%}", x, level, style="dashed"))
    return Panel(title, "width", f"relative gap to {to}", tuple(series), "log", "log")


def _over_time(runs) -> tuple[Panel, ...]:
    """None for a posterior, which is one step from the prior."""
    if len(runs.limit.trajectory.steps) <= 2:
        return ()
    series = []
    for width in runs.widths:
        own = [(run.trajectory, runs.from_start_of(run).trajectory) for run in runs.at(width)]
        curves = np.array(
            [
                [relative(a, b) for a, b in zip(run.predictions, limit.predictions, strict=True)]
                for run, limit in own
            ]
        )
        steps = own[0][0].steps
        series.append(Series(f"width {width}", tuple(steps), tuple(curves.mean(axis=0))))
    return (Panel("Gap while training", "step", "relative gap to the limit", tuple(series)),)


def _against_widest(runs, instrument: Consistency) -> Finding:
    """Where the limit is open: finite members against the mean of the widest."""
    *narrower, widest = runs.widths
    reference = np.mean([final(run) for run in runs.at(widest)], axis=0)
    gaps = np.array([[relative(final(run), reference) for run in runs.at(w)] for w in narrower])
    rows = tuple((w, float(g.mean()), _error(g)) for w, g in zip(narrower, gaps, strict=True))
    near = f"; width {narrower[-1]} is within {gaps[-1].mean():.1%} of it" if narrower else ""
    why = OPEN if any(cell.width == math.inf for cell in runs.open_cells) else NOT_ASKED
    sentence = (
        f"{why}, so members are held against width {widest}{near}. The exponent of the gap to "
        "infinity is not resolved."
    )
    panels = ()
    if narrower:
        law = PowerLaw(math.nan, math.inf, math.nan, math.nan, "the limit is open")
        title = f"Test predictions against width {widest}"
        panels = (_panel(title, narrower, gaps, law, instrument.tolerance, f"width {widest}"),)
    numbers: dict[str, Any] = {"exponents": {}, "tolerance": instrument.tolerance}
    if narrower:
        numbers |= {"widest": [narrower[-1], widest], "gap": float(gaps[-1].mean())}
    table = Table(("width", f"gap to width {widest}", "standard error"), rows)
    title = titled("Consistency", runs)
    return Finding("Consistency", title, sentence, numbers, table, panels, (instrument.source,))
