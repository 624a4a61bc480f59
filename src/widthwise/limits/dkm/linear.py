"""Deep kernel machines of linear networks in closed form."""

import math

import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float

from widthwise.solve import NotSolvable

STEPS = 20_000  # of the self-consistent iteration under noise
CHANGE = 1e-12  # of the Gram matrix, at which it ends
RANK = 1e-12  # eigenvalues of the targets, over the largest, that count as zero


def linear_grams(
    gram: Float[np.ndarray, "n n"],
    y: Float[np.ndarray, "n k"],
    nus: tuple[float, ...],
    *,
    noise: float = 0.0,
) -> list[Float[np.ndarray, "n n"]]:
    """The Gram matrices of a deep linear network's hidden layers, weight variances 1, no biases.

    >>> grams = linear_grams(np.eye(2), np.diag([2.0, 4.0]), (2.0,))
    >>> np.diagonal(grams[0]).round(6).tolist()
    [1.414214, 2.828427]

    With nu = k in every layer and no noise they lie on the geodesic between the inputs' Gram matrix
    and y y^T / k. In general every eigenvalue r of the latter, whitened by the former, has one m
    with (1 + m / nu_1) ... (1 + m / nu_L) (1 + m / k) = r, and layer l multiplies by 1 + m / nu_l.
    Under noise y y^T / k is the second moment of the noiseless outputs, found by iterating.

    Args:
        gram: of the inputs; without noise, positive definite.
        y: targets, a column an output.
        nus: of the hidden layers, in turn.
        noise: variance of the noise, at least 0.

    Raises ValueError where the optimum is degenerate, without noise: inputs of a rank below n, or
    targets of a rank below n and a nu of k or less; NotSolvable where the iteration does not end.

    Source: yang2023theory, section 4 (equal nu); the other cases follow from its objective.
    """
    rows, outputs = y.shape
    values, vectors = scipy.linalg.eigh(gram)
    kept = values > RANK * values[-1]
    if noise == 0 and not kept.all():
        raise ValueError(
            f"The Gram matrix of {rows} inputs is singular: give no more rows than columns, or "
            "noise."
        )
    root, inverse = (vectors[:, kept] * values[kept] ** power for power in (0.5, -0.5))
    target = y @ y.T / outputs
    if noise == 0:
        return _between(root, inverse, target, nus, outputs)
    grams = [gram]
    for _ in range(STEPS):
        last = grams[-1]
        gain = np.linalg.solve(last + noise * np.eye(rows), last).T
        now = _between(root, inverse, last - gain @ last + gain @ target @ gain.T, nus, outputs)
        if np.linalg.norm(now[-1] - last) <= CHANGE * np.linalg.norm(last):
            return now
        grams = now
    raise NotSolvable(
        f"The Gram matrices of linear layers still move after {STEPS} steps: give a smaller noise."
    )


def _between(root, inverse, end, nus: tuple[float, ...], outputs: int) -> list[np.ndarray]:
    """Those that lead from root root^T to the last covariance."""
    ratios, vectors = scipy.linalg.eigh(inverse.T @ end @ inverse)
    ratios = np.where(ratios > RANK * ratios[-1], ratios, 0.0)
    shift = np.array([_shift(float(ratio), (*nus, outputs)) for ratio in ratios])
    for number, nu in enumerate(nus, start=1):
        if not np.all(1 + shift / nu > RANK):
            raise ValueError(
                f"nu of hidden layer {number} is {nu:g}, the {outputs} columns of targets have a "
                f"rank below {len(ratios)} and there is no noise, so its Gram matrix collapses: "
                f"give a nu over {outputs}, or noise."
            )
    factors = np.cumprod([1 + shift / nu for nu in nus], axis=0)
    basis = root @ vectors
    return [(basis * factor) @ basis.T for factor in factors]


def _shift(ratio: float, nus: tuple[float, ...]) -> float:
    """m > -min(nu) with the product of 1 + m / nu equal to the ratio; it grows with m."""
    least = min(nus)
    if ratio == 0:
        return -least
    high = max(0.0, least * (ratio - 1))
    found = scipy.optimize.brentq(
        lambda m: math.prod(1 + m / nu for nu in nus) - ratio, -least, high, xtol=1e-300
    )
    return float(found)  # type: ignore[arg-type]
