"""How far members of finite width are from infinity, and how the gap shrinks."""

import math
from typing import ClassVar

import numpy as np

from widthwise.measure.base import AbstractInstrument, Finding, Panel, Series, Table
from widthwise.measure.power import PowerLaw, fit_power

OPEN = "The limit of this family is an open cell"


class Consistency(AbstractInstrument):
    """Gap of predictions, losses and kernels to the infinite-width member, against width.

    >>> print(Consistency()(runs))  # doctest: +SKIP
    Test predictions at width 1024 are within 9 % (rms, 4 seeds) of their limit; gap ~ n^-0.41 ± 0.04.

    Every finite run is held against the limit started from that run's own initial function. Gaps
    are rms over test points and outputs, relative to the rms of the limit's predictions.

    Args:
        tolerance: the relative gap that counts as agreement.
    """

    source: ClassVar[str] = "vyas2023, section 3; lee2019, Theorem 2.1"
    tolerance: float = 0.1

    def __call__(self, runs) -> Finding:
        widths = runs.widths
        if not widths:
            return _nothing("No finite width was trained: there is nothing to compare.")
        if runs.limit is None:
            return _against_widest(runs, self)
        gaps, loss_gaps, kernels = _gaps(runs)
        law = fit_power(np.array(widths), gaps)
        kernel_law = fit_power(np.array(widths), kernels)
        loss_law = fit_power(np.array(widths), np.maximum(np.abs(loss_gaps), 1e-12))
        mean_gap, var_gap = _ensemble(runs)
        ensemble_law = fit_power(np.array(widths), mean_gap[:, None])
        enough = _enough(law, self.tolerance, widths, gaps.mean(axis=1))
        widest = gaps[-1].mean()
        sentence = (
            f"Test predictions at width {widths[-1]} are within {widest:.1%} (rms, "
            f"{gaps.shape[1]} seeds) of their limit; gap ~ {law}. {enough}"
        )
        rows = tuple(
            (
                width, float(g.mean()), _error(g), float(k.mean()), float(l_gap.mean()),
                float(m), float(v),
            )
            for width, g, k, l_gap, m, v in zip(
                widths, gaps, kernels, loss_gaps, mean_gap, var_gap, strict=True
            )
        )  # fmt: skip
        table = Table(
            (
                "width", "gap of predictions", "standard error", "gap of the NNGP kernel at start",
                "gap of the test loss", "gap of the ensemble's mean", "gap of the ensemble's std",
            ),
            rows,
        )  # fmt: skip
        numbers = {
            "exponent": _law(law),
            "kernel_exponent": _law(kernel_law),
            "ensemble_mean_exponent": _law(ensemble_law),
            "loss_exponent": _law(loss_law),
            "tolerance": self.tolerance,
            "width_for_tolerance": law.width_for(self.tolerance) if law.resolved else None,
            "gaps": gaps.tolist(),
        }
        panels = (
            _panel("Test predictions", widths, gaps, law, self.tolerance),
            _panel("NNGP kernel at the start", widths, kernels, kernel_law, None),
            _over_time(runs),
        )
        title = f"Consistency under {type(runs.family.scaling).__name__} scaling"
        return Finding("Consistency", title, sentence, numbers, table, panels, (self.source,))


def _gaps(runs):
    """(widths, seeds) arrays: of predictions, test losses and kernels at initialisation."""
    gaps, losses, kernels = [], [], []
    last = list(runs.limit.trajectory.kernels)[-1]
    kernel = runs.limit.trajectory.kernels[last][0]
    for width in runs.widths:
        own = runs.at(width)
        limits = [runs.from_start_of(run) for run in own]
        pairs = list(zip(own, limits, strict=True))
        gaps.append([_relative(r.trajectory.predictions[-1], l.trajectory.predictions[-1])
                     for r, l in pairs])  # fmt: skip
        losses.append([r.trajectory.test_loss[-1] - l.trajectory.test_loss[-1] for r, l in pairs])
        kernels.append([_relative(r.trajectory.kernels[last][0], kernel) for r, _ in pairs])
    return np.array(gaps), np.array(losses), np.array(kernels)


def _ensemble(runs):
    """Relative gaps of the mean and std over seeds, paired: the ensemble against the limits from
    the same initial functions, so that the sampling of seeds cancels."""
    means, stds = [], []
    for width in runs.widths:
        own = np.stack([r.trajectory.predictions[-1] for r in runs.at(width)])
        limits = np.stack(
            [runs.from_start_of(r).trajectory.predictions[-1] for r in runs.at(width)]
        )
        means.append(_relative(own.mean(axis=0), limits.mean(axis=0)))
        few = len(own) < 2
        stds.append(math.nan if few else _relative_number(_std(own), _std(limits)))
    return np.array(means), np.array(stds)


def _std(stack) -> float:
    return float(np.sqrt(stack.var(axis=0, ddof=1).mean()))


def _relative_number(x: float, reference: float) -> float:
    return (x - reference) / reference


def _relative(x, reference) -> float:
    x, reference = np.asarray(x, dtype=float), np.asarray(reference, dtype=float)
    return float(np.sqrt(np.mean((x - reference) ** 2) / np.mean(reference**2)))


def _error(values) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _enough(law: PowerLaw, tolerance: float, widths, means) -> str:
    reached = [w for w, gap in zip(widths, means, strict=True) if gap <= tolerance]
    if reached:
        return f"Width {reached[0]} is the first trained width within {tolerance:.0%}."
    if not law.resolved:
        return f"No trained width is within {tolerance:.0%}."
    width = law.width_for(tolerance)
    return (
        f"No trained width is within {tolerance:.0%}; extrapolated, width {_round(width)} would be."
    )


def _round(width: float) -> str:
    if not math.isfinite(width) or width > 1e9:
        return "beyond 1e9"
    digits = max(0, int(math.floor(math.log10(width))) - 1)
    return f"about {int(round(width, -digits)):,}"


def _law(law: PowerLaw) -> dict:
    return {
        "exponent": law.exponent, "uncertainty": law.uncertainty, "resolved": law.resolved,
        "reason": law.reason, "misfit": law.misfit,
    }  # fmt: skip


def _panel(title, widths, gaps, law: PowerLaw, tolerance: float | None) -> Panel:
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
        series.append(Series(f"tolerance {tolerance:.0%}", x, (tolerance,) * len(x), style="dashed"))
    return Panel(title, "width", "relative gap to the limit", tuple(series), "log", "log")


def _over_time(runs) -> Panel:
    series = []
    for width in runs.widths:
        own = runs.at(width)
        steps = own[0].trajectory.steps
        curves = np.array(
            [
                [_relative(a, b) for a, b in zip(
                    run.trajectory.predictions, runs.from_start_of(run).trajectory.predictions,
                    strict=True)]
                for run in own
            ]
        ).mean(axis=0)  # fmt: skip
        shown = steps > 0
        series.append(Series(f"width {width}", tuple(steps[shown]), tuple(curves[shown])))
    return Panel(
        "Gap while training", "step", "relative gap to the limit", tuple(series), "log", "log"
    )


def _against_widest(runs, instrument: Consistency) -> Finding:
    """No limit yet: members against the mean of the widest, which says less."""
    widths = runs.widths
    widest = np.mean([r.trajectory.predictions[-1] for r in runs.at(widths[-1])], axis=0)
    gaps = np.array(
        [[_relative(r.trajectory.predictions[-1], widest) for r in runs.at(w)] for w in widths[:-1]]
    ).reshape(len(widths) - 1, -1)
    rows = tuple((w, float(g.mean()), _error(g)) for w, g in zip(widths[:-1], gaps, strict=True))
    near = f"; width {widths[-2]} is within {gaps[-1].mean():.1%} of it" if len(gaps) else ""
    sentence = (
        f"{OPEN}, so members are held against width {widths[-1]}{near}. The exponent of the gap "
        "to infinity is not resolved."
    )
    panels = ()
    if len(gaps):
        law = PowerLaw(math.nan, math.inf, math.nan, math.nan, False, "limit open")
        panels = (_panel(f"Test predictions against width {widths[-1]}", widths[:-1], gaps, law,
                         instrument.tolerance),)  # fmt: skip
    return Finding(
        "Consistency",
        f"Consistency under {type(runs.family.scaling).__name__} scaling",
        sentence,
        {"exponent": None, "resolved": False, "tolerance": instrument.tolerance},
        Table(("width", f"gap to width {widths[-1]}", "standard error"), rows),
        panels,
        (instrument.source,),
    )


def _nothing(sentence: str) -> Finding:
    return Finding("Consistency", "Consistency", sentence, {}, Table((), ()))
