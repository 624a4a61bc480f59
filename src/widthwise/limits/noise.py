"""The noise variance of a Gaussian process, chosen by its evidence or by leaving one row out."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
from jaxtyping import Float

from widthwise.learner import Criterion
from widthwise.solve import Spectrum

NOISES = (1e-8, 1e2)  # relative to the mean of the kernel's diagonal


def best_noise(
    kernel: Float[np.ndarray, "n n"], y: Float[np.ndarray, "n k"], criterion: Criterion = "evidence"
) -> tuple[float, float]:
    """The noise variance of the best value of a criterion, and that value: one spectrum, any noise.

    >>> best_noise(np.eye(4), np.array([[2.0], [-2.0], [2.0], [-2.0]]))[0] > 2.5
    True

    "evidence" is the log of p(y | x), to be large; "leave_one_out" the mean over rows of the
    squared error, summed over columns, of each row predicted by all others, to be small.

    Source: rasmussen2006, eqs. (2.30) and (5.12).
    """
    spectrum = Spectrum.of(np.asarray(kernel, dtype=float))
    turned = spectrum.vectors.T @ y
    power = np.sum(turned**2, axis=1)

    def by_spectrum(noise: float) -> float:
        level = spectrum.values + noise
        return negative_evidence(np.sum(power / level), np.sum(np.log(level)), y)

    def left_out(noise: float) -> float:
        inverse = 1 / (spectrum.values + noise)
        own = spectrum.vectors**2 @ inverse  # the inverse's diagonal
        error = spectrum.vectors @ (inverse[:, None] * turned) / own[:, None]
        return float(np.sum(error**2) / len(y))

    objective = by_spectrum if criterion == "evidence" else left_out
    noise, least = least_noise(objective, float(np.mean(np.diagonal(kernel))), y, NOISES[0])
    return noise, -least if criterion == "evidence" else least


def negative_evidence(fit: Any, log_determinant: Any, y: Any) -> Any:
    """-log p(y | x), of the columns' sum of y^T (K + noise I)^-1 y and of log |K + noise I|."""
    rows, columns = y.shape
    return 0.5 * (fit + columns * (log_determinant + rows * math.log(2 * math.pi)))


def least_noise(
    objective: Callable[[float], float], scale: float, y: Float[np.ndarray, "n k"], low: float
) -> tuple[float, float]:
    """Where the objective is least, and how small it is there.

    Noises from `low` times the scale of the kernel up are looked at.
    """
    bottom, top = math.log(low * scale), math.log(NOISES[1] * scale)
    top = max(top, math.log(10 * float(np.mean(y**2)) + low * scale))  # all of y may be noise
    # There may be two valleys, noise or signal: look everywhere, then refine.
    grid = np.linspace(bottom, top, 47)
    best = int(np.argmin([objective(math.exp(point)) for point in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(
        lambda point: objective(math.exp(point)), bounds=ends, method="bounded"
    )
    return math.exp(float(found.x)), float(found.fun)  # type: ignore[attr-defined]
