"""All members side by side: accuracy, loss, calibration, time."""

import math
from typing import Any, ClassVar

import numpy as np

from widthwise.measure.base import AbstractInstrument, Finding, Panel, Series, Table, name_of
from widthwise.problem import probabilities

BINS = 10
SAME = "∞, same starts"  # from the initial functions of the widest finite members
MEAN = "∞, mean over all starts"  # the member at infinity in the mean over initial functions


class Agreement(AbstractInstrument):
    """Test score, loss, calibration and time of every member, open cells included.

    >>> Agreement()(runs).table.columns[:3]  # doctest: +SKIP
    ('member', 'width', 'test accuracy')

    Takes one `Runs` or several. Classification: accuracy and expected calibration error of the
    class probabilities. Regression: R^2 and root mean squared error in units of the target's
    standard deviation. Means over seeds, with standard errors of the score.
    """

    source: ClassVar[str] = "guo2017, eq. (3)"

    def __call__(self, runs) -> Finding:
        families = runs if isinstance(runs, list | tuple) else (runs,)
        classes = families[0].data.task == "classification"
        score = "test accuracy" if classes else "test R²"
        spread = "calibration error" if classes else "rms error (standardised)"
        rows = [row for family in families for row in _rows(family)]
        columns = ("member", "width", score, "± over seeds", "test loss", spread, "seconds")
        table = Table(columns, tuple(rows))
        known = [row for row in rows if row[2] is not None and math.isfinite(row[2])]
        sentence = "No member was trained."
        numbers: dict[str, Any] = {"score": score}
        if known:
            best = max(known, key=lambda row: row[2])
            shown = f"{best[2]:.1%}" if classes else f"{best[2]:.3f}"
            sentence = f"Highest test score: {best[0]} at width {best[1]}, {score} {shown}."
            numbers["best"] = list(best[:3])
        return Finding(
            "Agreement", "All members side by side", sentence, numbers, table,
            (_panel(families, rows, score),), (self.source,),
        )  # fmt: skip


def _rows(runs) -> list[tuple]:
    """One row a width. Infinity stands twice where it was also started from the initial functions
    of the widest members: as single networks, which those rows compare with, and in the mean."""
    groups: list[tuple[Any, Any]] = [(int(width), runs.at(width)) for width in runs.widths]
    starts = [runs.from_start_of(run) for run in (groups[-1][1] if groups else ())]
    follows = all(start is not None and start is not runs.limit for start in starts)
    if runs.limit and starts and follows:
        groups += [(SAME, starts), (MEAN, (runs.limit,))]
    elif runs.limit:
        groups.append(("∞", (runs.limit,)))
    name = name_of(runs.family)
    rows: list[tuple] = [(name, label, *_mean_scores(own, runs.data)) for label, own in groups]
    for cell in runs.open_cells:
        label = "∞" if cell.width == math.inf else int(cell.width)
        rows.append((name, label, None, None, None, None, None))
    return rows


def _mean_scores(own, data) -> tuple:
    """(score, its standard error, test loss, calibration or rms error, seconds) over seeds."""
    scores = np.array([scores_of(run, data) for run in own])
    mean, count = scores.mean(axis=0), len(scores)
    error = float(scores[:, 0].std(ddof=1) / math.sqrt(count)) if count > 1 else None
    return (float(mean[0]), error, *map(float, mean[1:]))


def scores_of(run, data) -> tuple[float, float, float, float]:
    """(score, test loss, calibration or rms error, seconds) of a run on the data's test rows."""
    outputs = run.trajectory.predictions[-1] + run.offset
    loss = float(run.trajectory.test_loss[-1])
    if run.task == "classification":
        chances = probabilities(outputs, run.loss)
        return accuracy(outputs, data.y_test), loss, calibration(chances, data.y_test), run.seconds
    error = float(np.sqrt(np.mean((outputs - data.y_test) ** 2)))
    return r_squared(outputs, data.y_test), loss, error, run.seconds


def accuracy(outputs, one_hot) -> float:
    return float(np.mean(np.argmax(outputs, axis=1) == np.argmax(one_hot, axis=1)))


def r_squared(outputs, targets) -> float:
    residual = np.sum((targets - outputs) ** 2, axis=0)
    total = np.sum((targets - targets.mean(axis=0)) ** 2, axis=0)
    if not (total > 0).all():
        return math.nan  # one row, or equal targets: nothing to explain
    return float(np.mean(1 - residual / total))


def calibration(chances, one_hot) -> float:
    """Expected calibration error: confidence against accuracy in ten bins of confidence."""
    confidence = chances.max(axis=1)
    right = np.argmax(chances, axis=1) == np.argmax(one_hot, axis=1)
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(np.mean(confidence[which == b]) - np.mean(right[which == b])) * np.mean(which == b)
        for b in range(BINS)
        if np.any(which == b)
    ]
    return float(np.sum(gaps))


def _panel(families, rows, score: str) -> Panel:
    series, known = [], [row for row in rows if row[2] is not None]
    for name in dict.fromkeys(row[0] for row in known):
        finite = [row for row in known if row[0] == name and isinstance(row[1], int)]
        if finite:
            x, y = tuple(float(row[1]) for row in finite), tuple(row[2] for row in finite)
            error = np.array([row[3] or 0.0 for row in finite])
            low, high = tuple(np.array(y) - error), tuple(np.array(y) + error)
            series.append(Series(name, x, y, low, high, "line"))
    widths = sorted({w for family in families for w in family.widths})
    ends = (float(widths[0]), float(widths[-1])) if len(widths) > 1 else (64.0, 1024.0)
    for row in known:
        if not isinstance(row[1], int):
            label = f"{row[0]}, width {row[1]}"
            series.append(Series(label, ends, (row[2], row[2]), style="dashed"))
    return Panel(score[0].upper() + score[1:], "width", score, tuple(series), "log", "linear")
