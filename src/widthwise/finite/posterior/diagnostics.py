"""Whether chains agree, and how many independent draws they are worth."""

from typing import Any, NamedTuple

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float

from widthwise.inference import Sampling
from widthwise.solve import float64

MIXED = 1.01  # R-hat above which chains do not agree
FEWEST = 100  # effective draws for each chain, below which R-hat itself is not known


class Diagnostics(NamedTuple):
    """The worst over a function's values at the probe rows.

    `rhat` compares the spread between half chains with that within, 1 where they agree;
    `effective` is the bulk effective sample size; `divergences` counts steps that were off the
    energy.
    """

    rhat: float
    effective: float
    divergences: int

    def told(self, sampling: Sampling, rows: int, where: str) -> list[str]:
        """What a run's notes say of them; `where` is which run it is."""
        notes = [
            f"{where}, {sampling.chains} chains of {sampling.draws} draws after "
            f"{sampling.warmup} steps of warm-up: split R-hat is {self.rhat:.4f} and the bulk "
            f"effective sample size {self.effective:.0f}, the worst over the outputs at {rows} "
            f"probe rows; {self.divergences} divergences."
        ]
        if not (self.rhat <= MIXED and self.effective >= FEWEST * sampling.chains):
            notes.append(
                f"{where}, the chains have not mixed (R-hat above {MIXED} or fewer than {FEWEST} "
                "effective draws a chain): give Sampling more warmup and draws, or a larger "
                "noise, before relying on them."
            )
        if self.divergences:
            notes.append(
                f"{where}, steps diverged, so that parts of the posterior may be left out: give "
                "Sampling more warmup, or a larger noise."
            )
        return notes


def diagnostics(values: Float[np.ndarray, "c s *p"], divergences: int) -> Diagnostics:
    """Of functions' values, which several chains drew.

    >>> values = np.random.default_rng(0).normal(size=(4, 500, 3))
    >>> found = diagnostics(values, 0)
    >>> found.rhat < 1.02, found.effective > 1500
    (True, True)

    Source: vehtari2021, split R-hat and bulk effective sample size.
    """
    from blackjax.diagnostics import effective_sample_size, potential_scale_reduction

    flat = _halves(values.reshape(*values.shape[:2], -1))
    with float64():
        rhat: Any = np.asarray(potential_scale_reduction(flat))
        ranked = np.asarray(effective_sample_size(_normal_scores(flat)))
    rhat = np.where(np.ptp(flat, axis=(0, 1)) > 0, rhat, 1.0)  # a value that all draws share
    return Diagnostics(float(np.max(rhat)), float(np.min(ranked)), divergences)


def _halves(values: np.ndarray) -> np.ndarray:
    """Each chain as two, so that one that drifts disagrees with itself."""
    count = values.shape[1] // 2
    return np.concatenate([values[:, :count], values[:, -count:]])


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Ranks among all chains' draws, as quantiles of a normal."""
    flat = values.reshape(-1, values.shape[-1])
    ranks = scipy.stats.rankdata(flat, axis=0)
    scores = scipy.special.ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4))
    return scores.reshape(values.shape)
