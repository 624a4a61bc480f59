"""The action of the proportional limit, and where it is least."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float

Order = Float[np.ndarray, "d d"]
# What data say of an order parameter: log |A| + y^T A^-1 y of the covariance A, and its gradient.
Data = Callable[[Order], tuple[float, Order]]

STARTS = (1.0, 0.03, 30.0)  # multiples of the identity: with noise there may be two valleys
STEPS = 2000
LEFT = 1e-6  # of the gradient, in units of a width
HALVINGS = 100


class Least(NamedTuple):
    """The order parameter at the action's minimum, and the action there."""

    order: Order
    action: float


def least_action(data: Data, widths: tuple[int, ...], size: int) -> Least:
    """Minimises the cost of the prior plus what data say, over positive definite matrices.

    >>> found = least_action(lambda q: (2.0 * np.trace(q), 2.0 * np.eye(2)), (4,), 2)
    >>> found.order.round(6).tolist()
    [[0.666667, 0.0], [0.0, 0.666667]]

    By L-BFGS on the logarithm's diagonal and the rest of a triangular factor, from three multiples
    of the identity; the least of what they find.

    Raises ValueError where the minimum is not found.
    """
    if not widths:
        return Least(np.eye(size), data(np.eye(size))[0])
    scale, below = sum(widths) / len(widths), np.tril_indices(size)
    diagonal = below[0] == below[1]

    def order_of(entries):
        factor = np.zeros((size, size))
        factor[below] = np.where(diagonal, np.exp(np.minimum(entries, 300.0)), entries)
        return factor

    def objective(entries):
        factor = order_of(entries)
        order = factor @ factor.T
        cost, slope = prior_cost(order, widths)
        fit, other = data(order)
        turned = 2 * ((slope + other) @ factor)[below]
        turned = np.where(diagonal, turned * factor[below], turned)
        return (cost + fit) / scale, turned / scale

    found = []
    for start in STARTS:
        entries = np.where(diagonal, np.log(start) / 2, 0.0)
        run = scipy.optimize.minimize(
            objective, entries, jac=True, method="L-BFGS-B",
            options={
                "maxiter": STEPS, "maxfun": 2 * STEPS, "maxcor": 30, "ftol": 0.0, "gtol": 1e-11,
            },
        )  # fmt: skip
        found.append(run)
    best = min(found, key=lambda run: run.fun)
    if not np.abs(best.jac).max() <= LEFT:
        raise ValueError("The action's minimum is not found: give more noise.")
    factor = order_of(best.x)
    return Least(factor @ factor.T, float(best.fun) * scale)


def prior_cost(order: Order, widths: tuple[int, ...]) -> tuple[float, Order]:
    """The least sum_l N_l (tr Q_l - log |Q_l| - d) of factors of Q, and its gradient in Q.

    >>> cost, slope = prior_cost(np.diag([4.0]), (10, 10))
    >>> round(cost, 6), slope.round(6).tolist()  # 2 * 10 (2 - log 2 - 1), and 10 (2 - 1) / 4
    (6.137056, [[2.5]])

    It is least where the factors commute with Q, and N_l (q_l - 1) is the same number m in all
    layers, for each eigenvalue; m is the derivative in that eigenvalue's logarithm.
    """
    values, vectors = np.linalg.eigh(order)
    values = np.maximum(values, np.finfo(float).tiny)
    tensions = _tensions(np.log(values), np.array(widths, dtype=float))
    stretched = tensions[:, None] / np.array(widths)
    cost = np.sum(tensions[:, None] - np.array(widths) * np.log1p(stretched))
    return float(cost), (vectors * (tensions / values)) @ vectors.T


def orders_behind(order: Order, widths: tuple[int, ...]) -> list[Order]:
    """Q_l ... Q_L of the layers' factors of Q, for every l: the outputs' covariance behind layer l.

    >>> [found.item() for found in orders_behind(np.diag([4.0]), (10, 10))]
    [4.0, 2.0]
    """
    values, vectors = np.linalg.eigh(order)
    tensions = _tensions(np.log(values), np.array(widths, dtype=float))
    factors = [1 + tensions / width for width in widths]
    behind = np.cumprod(factors[::-1], axis=0)[::-1]
    return [(vectors * found) @ vectors.T for found in behind]


def _tensions(logs: Float[np.ndarray, " d"], widths: Float[np.ndarray, " l"]) -> np.ndarray:
    """m with sum_l log(1 + m / N_l) = log q, by Newton's method in log(1 + m / min N)."""
    least, depth = widths.min(), len(widths)
    # the narrowest layer moves most: its logarithm lies between log q / depth and log q
    at = np.where(logs > 0, logs, logs / depth)
    for _ in range(HALVINGS):
        stretched = np.expm1(at)[:, None] * (least / widths)
        gap = np.sum(np.log1p(stretched), axis=1) - logs
        slope = np.sum(np.exp(at)[:, None] * (least / widths) / (1 + stretched), axis=1)
        step = gap / slope
        at = at - step
        if np.abs(step).max() <= 1e-15 * (1 + np.abs(at).max()):
            break
    return least * np.expm1(at)
