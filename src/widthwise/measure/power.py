"""Power laws in width, fitted with their uncertainty, and called unresolved when they are poor."""

import math
from typing import NamedTuple

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
    resolved: bool
    reason: str  # why it is not resolved, or ""

    def at(self, width):
        return self.level * np.asarray(width, dtype=float) ** self.exponent

    def width_for(self, gap: float) -> float:
        """The width at which the law falls to this gap; inf where it does not fall."""
        return (gap / self.level) ** (1 / self.exponent) if self.exponent < 0 else math.inf

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
    gaps = np.asarray(gaps, dtype=float)
    if len(widths) < 2 or not (np.isfinite(gaps).all() and (gaps > 0).all()):
        return PowerLaw(math.nan, math.inf, math.nan, math.nan, False, "too few widths")
    x = np.log(np.asarray(widths, dtype=float))
    y = np.log(gaps)
    centred = x - x.mean()
    spread = np.sum(centred**2)
    slopes = centred @ y / spread
    mean = y.mean(axis=1)
    exponent = float(slopes.mean())
    residual = mean - mean.mean() - exponent * centred
    misfit = float(np.sqrt(np.mean(residual**2)))
    level = float(np.exp(mean.mean() - exponent * x.mean()))
    if len(widths) < 3:
        return PowerLaw(exponent, math.inf, level, misfit, False, "needs three widths")
    seeds = gaps.shape[1]
    by_seed = 0.0
    if seeds > 1:
        by_seed = scipy.stats.t.ppf(0.975, seeds - 1) * slopes.std(ddof=1) / math.sqrt(seeds)
    by_line = math.sqrt(np.sum(residual**2) / (len(widths) - 2) / spread)
    uncertainty = float(math.hypot(by_seed, by_line))
    reason = ""
    if misfit > MISFIT:
        reason = "the gaps do not lie on a line"
    elif uncertainty > WIDE:
        reason = f"the exponent is uncertain by {uncertainty:.2f}"
    elif exponent > -0.05:
        reason = "the gap does not shrink with the width"
    return PowerLaw(exponent, uncertainty, level, misfit, not reason, reason)
