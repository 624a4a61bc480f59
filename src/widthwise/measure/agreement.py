"""All members side by side: accuracy, loss, calibration, time."""

import math
from typing import ClassVar

import numpy as np

from widthwise.measure.base import AbstractInstrument, Finding, Panel, Series, Table
from widthwise.problem import probabilities

BINS = 10


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
        spread = "calibration error" if classes else "rms error"
        rows = [row for family in families for row in _rows(family)]
        table = Table(("member", "width", score, "±", "test loss", spread, "seconds"), tuple(rows))
        known = [row for row in rows if row[2] is not None]
        best = max(known, key=lambda row: row[2])
        shown = f"{best[2]:.1%}" if classes else f"{best[2]:.3f}"
        sentence = f"Best member: {best[0]} at width {best[1]}, {score} {shown}."
        numbers = {"score": score, "best": list(best[:3])}
        return Finding(
            "Agreement", "All members side by side", sentence, numbers, table,
            (_panel(families, rows, score),), (self.source,),
        )  # fmt: skip


def name_of(family) -> str:
    """How a family is called in tables: its scaling and learner."""
    learner = family.learner
    return f"{type(family.scaling).__name__}, {type(learner).__name__}"


def _rows(runs) -> list[tuple]:
    name, data = name_of(runs.family), runs.data
    rows = []
    for width in (*runs.widths, *((math.inf,) if runs.limit else ())):
        scores = np.array([scores_of(run, data) for run in runs.at(width)])
        mean = scores.mean(axis=0)
        count = len(scores)
        error = scores[:, 0].std(ddof=1) / math.sqrt(count) if count > 1 else None
        label = "∞" if width == math.inf else int(width)
        rows.append((name, label, float(mean[0]), None if error is None else float(error),
                     float(mean[1]), float(mean[2]), float(mean[3])))  # fmt: skip
    for cell in runs.open_cells:
        label = "∞" if cell.width == math.inf else int(cell.width)
        rows.append((name, label, None, None, None, None, None))
    return rows


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
    return float(np.mean(1 - residual / np.maximum(total, 1e-300)))


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
    series = []
    for family in families:
        own = [r for r in rows if r[0] == name_of(family.family) and r[2] is not None]
        finite = [r for r in own if r[1] != "∞"]
        if finite:
            x, y = tuple(float(r[1]) for r in finite), tuple(r[2] for r in finite)
            error = np.array([r[3] or 0.0 for r in finite])
            low, high = tuple(np.array(y) - error), tuple(np.array(y) + error)
            series.append(Series(own[0][0], x, y, low, high, "line"))
    widths = sorted({w for family in families for w in family.widths})
    ends = (float(widths[0]), float(widths[-1])) if len(widths) > 1 else (64.0, 1024.0)
    for r in (r for r in rows if r[1] == "∞" and r[2] is not None):
        series.append(Series(f"{r[0]}, width ∞", ends, (r[2], r[2]), style="dashed"))
    return Panel(score[0].upper() + score[1:], "width", score, tuple(series), "log", "linear")
