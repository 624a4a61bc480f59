"""Power laws in width, fitted with their uncertainty, and called unresolved when they are poor."""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

MISFIT = 0.15  # rms distance of log gaps from the line above which no power law is claimed
WIDE = 0.25  # half-width of the 95 % interval above which the exponent says nothing


class PowerLaw(NamedTuple):
    """gap = level * width^exponent, with the half-width of the exponent's 95 % interval."""

    exponent: float
    uncertainty: float
    level: float
    misfit: float
    reason: str  # why it is not resolved, or ""

    @property
    def resolved(self) -> bool:
        return not self.reason

    def at(self, width):
        return self.level * np.asarray(width, dtype=float) ** self.exponent

    def width_for(self, gap: float) -> float:
        """The width at which the law falls to this gap; inf where it does not fall."""
        return (gap / self.level) ** (1 / self.exponent) if self.exponent < 0 else math.inf

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "resolved": self.resolved}

    def __str__(self) -> str:
        if not self.resolved:
            return f"not resolved ({self.reason})"
        return f"n^{self.exponent:.2f} ± {self.uncertainty:.2f}"


def fit_power(widths: Float[np.ndarray, " w"], gaps: Float[np.ndarray, "w s"]) -> PowerLaw:
    """Least squares on logarithms, one line a seed; needs three widths to be resolved.

    >>> law = fit_power(np.array([64., 256., 1024.]), np.array([[.4, .4], [.2, .2], [.1, .1]]))
    >>> print(law)
    n^-0.50 ± 0.00

    The interval joins the spread of the seeds' slopes (Student's t) and the distance of the mean
    from a line.
    """
    if not _usable(widths, gaps):
        return _nothing("too few widths" if len(widths) < 2 else "a gap is zero")
    slopes = _slopes(widths, gaps)
    seeds = gaps.shape[1]
    by_seed = math.inf if seeds < 2 else slopes.std(ddof=1) / math.sqrt(seeds)
    level = np.exp(np.log(gaps).mean(axis=1))  # geometric mean: its slope is the mean slope
    return _law(widths, level, by_seed, seeds)


def fit_statistic(
    widths: Float[np.ndarray, " w"],
    gaps: Float[np.ndarray, " w"],
    without: Float[np.ndarray, "w s"],
) -> PowerLaw:
    """The law of a gap that needs all seeds at once, such as that of their mean.

    Args:
        widths: ascending.
        gaps: from all seeds.
        without: from all but one, for each seed: the jackknife gives the slope's error.
    """
    if not (_usable(widths, gaps[:, None]) and _usable(widths, without)):
        return _nothing("too few widths or seeds")
    slopes, seeds = _slopes(widths, without), without.shape[1]
    by_seed = math.sqrt((seeds - 1) / seeds * np.sum((slopes - slopes.mean()) ** 2))
    return _law(widths, gaps, by_seed, seeds)


def _usable(widths, gaps) -> bool:
    return len(widths) > 1 and gaps.size > 0 and bool(np.isfinite(gaps).all() and (gaps > 0).all())


def _nothing(reason: str) -> PowerLaw:
    return PowerLaw(math.nan, math.inf, math.nan, math.nan, reason)


def _slopes(widths, gaps):
    centred = np.log(np.asarray(widths, dtype=float))
    centred = centred - centred.mean()
    return centred @ np.log(gaps) / np.sum(centred**2)


def _law(widths, gaps, by_seed: float, seeds: int) -> PowerLaw:
    """The line through the gaps; `by_seed` is the standard error of its slope over seeds."""
    x, y = np.log(np.asarray(widths, dtype=float)), np.log(gaps)
    exponent = float(_slopes(widths, gaps[:, None])[0])
    level = float(np.exp(y.mean() - exponent * x.mean()))
    residual = y - y.mean() - exponent * (x - x.mean())
    misfit = float(np.sqrt(np.mean(residual**2)))
    if len(x) < 3:
        return PowerLaw(exponent, math.inf, level, misfit, "needs three widths")
    if seeds < 2:
        return PowerLaw(exponent, math.inf, level, misfit, "needs two seeds")
    by_line = math.sqrt(np.sum(residual**2) / (len(x) - 2) / np.sum((x - x.mean()) ** 2))
    uncertainty = math.hypot(by_seed * scipy.stats.t.ppf(0.975, seeds - 1), by_line)
    reason = ""
    if misfit > MISFIT:
        reason = "the gaps do not lie on a line"
    elif uncertainty > WIDE:
        reason = f"the exponent is uncertain by {uncertainty:.2f}"
    elif exponent > -0.05:
        reason = "the gap does not shrink with the width"
    elif exponent + uncertainty > 0:
        reason = f"{exponent:.2f} ± {uncertainty:.2f} may as well be 0"
    return PowerLaw(exponent, float(uncertainty), level, misfit, reason)
