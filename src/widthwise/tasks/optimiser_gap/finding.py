"""What the methods came to, side by side, and whether Adam explains what kernels lack."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.measure.base import Finding, Panel, Series, Table
from widthwise.tasks.optimiser_gap.methods import (
    DESCENT,
    FINITE,
    HEAVY_BALL,
    LIMIT,
    LINEARISED,
    REGRESSION,
)
from widthwise.tasks.optimiser_gap.study import Tuned

SOURCES = (
    "sernau2024, the claim, of which the abstract is public",
    "yang2023adaptive, Theorems 2.4.7 and 2.4.9", "jacot2018, Theorem 2",
)  # fmt: skip
CLOSED = 0.9  # of a gap that counts as all of it; or a rest within two standard errors
COLUMNS = (
    "method", "step size", "training loss", "±", "test score", "±", "test loss", "±",
    "step sizes tried", "best inside", "seconds a training",
)  # fmt: skip


class Measured(NamedTuple):
    """A mean over seeds and its standard error, None of one seed."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, values: Any) -> "Measured":
        found = np.asarray(values, float)
        if len(found) < 2:
            return cls(float(found.mean()), None)
        return cls(float(found.mean()), float(found.std(ddof=1) / math.sqrt(len(found))))

    @property
    def clear(self) -> bool:
        """Whether it is positive by more than two standard errors, if these are known."""
        return self.mean > 2 * (self.error or 0.0)


class Gap(NamedTuple):
    """What finite networks under Adam have over descent on the kernel, and who closes it."""

    gap: Measured
    linearised: Measured  # what it has over descent on the kernel, with features that stay
    shares: dict[str, float]
    closes: dict[str, bool]

    @property
    def verdict(self) -> str:
        """Of the claim that descent on the kernel loses to networks even if their features stay,
        and that the limit under Adam does not."""
        if not self.gap.clear:
            return "there is no gap to explain"
        if self.closes[LIMIT]:
            return "the claim holds" if self.linearised.clear else "the Adam limit closes the gap"
        return "the claim holds in part" if self.linearised.clear else "the claim does not hold"


def finding_of(found: dict[str, Tuned]) -> Finding:
    """The finding, from what `OptimiserGap.run` returns."""
    loss, score = gap_of(found, _log_loss), gap_of(found, _score)
    rows = []
    for name, tuned in found.items():
        best = tuned.best
        rows.append((
            name, best[0].lr,
            *Measured.of([one.last_loss for one in best]),
            *Measured.of([one.test_score for one in best]),
            *Measured.of([one.test_loss for one in best]),
            len(tuned.tried), "yes" if tuned.inside else "no",
            float(np.mean([one.seconds for one in best])),
        ))  # fmt: skip
    return Finding(
        instrument="OptimiserGap",
        title="What the optimiser explains",
        sentence=_sentence(found, loss, score),
        numbers={"training loss": _numbers(loss), "test score": _numbers(score)},
        table=Table(COLUMNS, tuple(rows)),
        panels=_panels(found),
        sources=SOURCES,
    )


def gap_of(found: dict[str, Tuned], measure: Any) -> Gap:
    """`measure` takes the trainings of a method to numbers, one a seed, larger being better."""
    values = {name: measure(tuned) for name, tuned in found.items()}
    gap, linearised = (Measured.of(values[x] - values[DESCENT]) for x in (FINITE, LINEARISED))
    shares, closes = {}, {}
    for name, own in values.items():
        rest = Measured.of(values[FINITE] - own)
        shares[name] = 1 - rest.mean / gap.mean if gap.mean else math.nan
        closes[name] = shares[name] >= CLOSED or (rest.error is not None and not rest.clear)
    return Gap(gap, linearised, shares, closes)


def _log_loss(tuned: Tuned) -> Float[np.ndarray, " s"]:
    return -np.log(np.maximum([one.last_loss for one in tuned.best], 1e-300))


def _score(tuned: Tuned) -> Float[np.ndarray, " s"]:
    return np.array([one.test_score for one in tuned.best])


def _numbers(gap: Gap) -> dict[str, Any]:
    return {
        "gap": gap.gap.mean, "standard_error": gap.gap.error, "verdict": gap.verdict,
        "share_closed": gap.shares,
    }  # fmt: skip


def _sentence(found: dict[str, Tuned], loss: Gap, score: Gap) -> str:
    lost = {name: math.exp(-float(np.mean(_log_loss(tuned)))) for name, tuned in found.items()}
    right = {name: Measured.of(_score(tuned)) for name, tuned in found.items()}
    return " ".join([
        f"Training loss: {lost[FINITE]:.2g} of finite networks under Adam, {lost[DESCENT]:.2g} of "
        f"descent on the kernel; {loss.verdict}{_closed(loss, ' in logarithms')}.",
        f"Test score: {_shown(right[FINITE])} and {_shown(right[DESCENT])}; {score.verdict}"
        f"{_closed(score)}.",
    ])  # fmt: skip


def _closed(gap: Gap, how: str = "") -> str:
    if not gap.gap.clear:
        return ""
    names = [name for name in (LIMIT, LINEARISED, HEAVY_BALL, REGRESSION) if name in gap.shares]
    if how:
        names = [name for name in names if name != REGRESSION]  # its loss is nothing but rounding
    shares = [f"{name} {gap.shares[name]:.0%}" for name in names]
    too = ", and momentum without Adam closes the gap too" if gap.closes[HEAVY_BALL] else ""
    return f"{too} (share of the gap{how}: {'; '.join(shares)})"


def _shown(score: Measured) -> str:
    error = "" if score.error is None else f" ± {score.error:.4f}"
    return f"{score.mean:.4f}{error}"


def _panels(found: dict[str, Tuned]) -> tuple[Panel, ...]:
    curves, choices = [], []
    for name, tuned in found.items():
        known = [one for one in tuned.best if len(one.train_loss)]
        lost = np.mean([one.train_loss for one in known], axis=0) if known else np.zeros(0)
        rate = tuned.best[0].lr
        if rate is None:  # a flow has times of its own, and ends at rounding
            continue
        steps = known[0].steps[1:]
        curves.append(Series(name, tuple(map(float, steps)), tuple(map(float, lost[1:]))))
        stable = [one for one in tuned.tried if math.isfinite(one.validation_loss)]
        choices.append(Series(
            name, tuple(one.lr / rate for one in stable),  # type: ignore[operator]
            tuple(one.validation_loss for one in stable),
        ))  # fmt: skip
    return (
        Panel("While training", "step", "training loss", tuple(curves), "log", "log"),
        Panel("Choice of the step size", "step size over the best", "loss on rows held out",
              tuple(choices), "log", "log"),
    )  # fmt: skip
