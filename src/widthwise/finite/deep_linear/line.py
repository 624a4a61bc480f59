"""The trapezoidal rule for densities on a line that are smooth and vanish at both ends."""

from collections.abc import Callable

import numpy as np
import scipy.special
from jaxtyping import Float

DROP = 40.0  # the ends are e^-DROP of the top
NODES, MOST = 64, 1 << 14
NARROWED = 4  # times that the window is drawn closer
TOLERANCE = 1e-9  # of its logarithm from one rule to the next: doubling squares the error

Line = Float[np.ndarray, " q"]


def line_rule(log_density: Callable[[Line], Line], low: float, high: float) -> tuple[Line, Line]:
    """Nodes, and the logarithms of the weights times the density there.

    >>> nodes, logs = line_rule(lambda t: -(t**2) / 2, -1.0, 1.0)
    >>> round(float(np.exp(logs).sum() ** 2 / np.pi), 12)
    2.0

    The window starts at (low, high), grows until the density is e^-40 of its top at both ends, then
    shrinks to where it is more. Nodes are doubled until the integral stays, which for an analytic
    density squares the error each time.

    Raises ValueError where 16,384 nodes are not enough.

    Source: trefethen2014, Theorem 5.1.
    """
    low, high = _window(log_density, low, high)
    nodes, before = NODES, np.inf
    while nodes <= MOST:
        at = np.linspace(low, high, nodes + 1)
        logs = log_density(at) + np.log((high - low) / nodes)
        total = log_sum(logs)
        if abs(total - before) <= TOLERANCE * max(1.0, abs(total)):
            return at, logs
        nodes, before = 2 * nodes, total
    raise ValueError(f"The posterior's integral is not known to {TOLERANCE:g} by {MOST} nodes.")


def _window(log_density, low: float, high: float) -> tuple[float, float]:
    """Where the density is more than e^-DROP of its top, and a little around it."""
    while True:
        logs = log_density(np.linspace(low, high, NODES + 1))
        top, reach = np.argmax(logs), high - low
        # at the top the density may be so large that e^-DROP of it is no other number
        left, right = ((logs[end] > logs[top] - DROP) or top == end % len(logs) for end in (0, -1))
        if not (left or right):
            break
        low, high = low - reach * left, high + reach * right
    for _ in range(NARROWED):
        at = np.linspace(low, high, NODES + 1)
        logs = log_density(at)
        kept = np.flatnonzero(logs >= logs.max() - DROP)
        low, high = float(at[max(kept[0] - 1, 0)]), float(at[min(kept[-1] + 1, NODES)])
    return low, high


def log_sum(logs: Float[np.ndarray, " n"]) -> float:
    """log of the sum of exp(logs)."""
    return float(np.asarray(scipy.special.logsumexp(logs)))
