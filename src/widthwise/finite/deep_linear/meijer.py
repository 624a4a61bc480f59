"""Meijer's G function without upper parameters: the density of a product of gamma variables."""

import numpy as np
import scipy.special
from jaxtyping import Float, Num

PER_WIDTH = 6  # nodes in one standard deviation of the saddle: aliasing is e^(-2 pi PER_WIDTH)
FIRST, MOST = 12 * PER_WIDTH, 1 << 14  # nodes on one side of the saddle
DROP = 40.0  # the integrand is e^-DROP of its top where the sum ends
GROWN = 4.0  # of DROP, what may grow where the line is bent
FAR = 1e12
BISECTIONS = 50


def log_meijer(
    log_z: Float[np.ndarray, "*z"] | float, parameters: Num[np.ndarray, " m"]
) -> Float[np.ndarray, "*z"]:
    """log G^{m,0}_{0,m}(z | b_1, ..., b_m) at z above zero, which are given by their logarithms.

    >>> log_z = np.log([0.5, 2.0])
    >>> np.exp(log_meijer(log_z, np.array([0.0, 0.5]))).round(6)  # sqrt(pi) e^(-2 sqrt z)
    array([0.430913, 0.104762])

    It is the integral of z^-s prod_j Gamma(b_j + s) / (2 pi i) right of the poles, by the
    trapezoidal rule through the real saddle, where convergence is geometric in the number of nodes:
    on a vertical line, or, where z is small and the saddle near a pole, on a parabola around the
    poles. The logarithm's error is about 1e-15 times the larger of 1 and the largest phase, m t
    log t at the last node's height t. Equal parameters cost as much as one.

    Args:
        log_z: an array, or one number.
        parameters: real and finite.

    Source: bateman1953, eq. 5.3 (1); trefethen2014, Theorem 5.1.
    """
    # sorted, so that the first has the rightmost poles
    values, counts = np.unique(np.asarray(parameters, dtype=float), return_counts=True)
    flat = np.ravel(np.asarray(log_z, dtype=float))
    if not np.isfinite(values).all() or not np.isfinite(flat).all():
        raise ValueError("Meijer's G wants finite parameters, and z above zero and finite.")
    if values.size == 1 and counts[0] == 1:
        return (values[0] * flat - np.exp(flat)).reshape(np.shape(log_z))
    beyond = values - values[0]
    saddle = _saddle(flat, beyond, counts)[:, None]
    top = scipy.special.gammaln(beyond + saddle) @ counts - saddle[:, 0] * flat
    curvatures = counts * scipy.special.polygamma(1, beyond + saddle)
    step = curvatures.sum(axis=1) ** -0.5 / (2 * saddle[:, 0] * PER_WIDTH)
    # left of the saddle the other factors grow, by this at most where the first has decayed
    growth = np.minimum(DROP**2 / 2 * curvatures * saddle**2, counts * beyond / 2).sum(axis=1)
    bend = (saddle[:, 0] < 1) & (growth < GROWN)
    # where the saddle is far, the integrand is a Gaussian to more digits than the logarithm has
    sums = np.full_like(flat, PER_WIDTH * np.sqrt(2 * np.pi))
    left, nodes = np.flatnonzero(saddle[:, 0] < FAR), FIRST
    while left.size:
        if nodes > MOST:
            raise ValueError(f"Meijer's G is not known at log z = {flat[left].min():g}.")
        across = step[left, None] * np.arange(nodes + 1)
        at = saddle[left] * (1 + 2j * across - bend[left, None] * across**2)
        logs = -at * flat[left, None] - top[left, None]
        for value, count in zip(beyond, counts, strict=True):
            logs += count * scipy.special.loggamma(value + at)
        large = np.logical_and.accumulate(logs.real > -DROP, axis=1)
        turn = 1 + 1j * bend[left, None] * across
        terms = (np.exp(np.where(large, logs, -np.inf)) * turn).real
        sums[left] = 2 * terms.sum(axis=1) - terms[:, 0]  # the other side is the mirror image
        left, nodes = left[large[:, -1]], 2 * nodes
    found = top + values[0] * flat + np.log(sums * step * saddle[:, 0] / np.pi)
    return found.reshape(np.shape(log_z))


def _saddle(log_z, beyond, counts):
    """x with sum_j psi(beyond_j + x) = log z; any x near it would do."""
    # psi(x) < psi(2) - 1 / x up to x = 1, and log(x) - 1 / x < psi(x) < log(x)
    slack = counts @ np.log1p(beyond) + counts[0] - log_z
    low = -np.log(np.maximum(slack / counts[0], 1.0))
    high = np.maximum(log_z / counts.sum(), 0.0) + 2.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        slope = scipy.special.psi(beyond + np.exp(middle)[:, None]) @ counts
        low, high = np.where(slope < log_z, middle, low), np.where(slope < log_z, high, middle)
    return np.exp(low)
