"""The proportional limit's scale without noise, as a function of width and depth alone."""

import math
from collections.abc import Callable

import numpy as np
import scipy.optimize


def scale_at_depth(ratio: float, power: float, depth: int) -> float:
    """The scale Q of the kernel of one output without noise, where all hidden layers are alike.

    >>> round(scale_at_depth(0.5, 2.0, 1), 5), round(scale_at_depth(0.5, 2.0, 5), 5)
    (1.28078, 1.65143)

    Q is u to the power of the depth, where 1 - u = ratio (1 - power u^-depth).

    Args:
        ratio: training rows over width, at least 0.
        power: y^T K^-1 y / n, the size of the targets beside what the kernel expects; above 0.
        depth: hidden layers, at least 1.

    Raises ValueError for values out of these ranges.

    Source: li2021, kernel renormalization.
    """
    _check(ratio=ratio, power=power)
    if depth < 1:
        raise ValueError(f"depth is {depth}: give hidden layers, at least 1.")

    return _scale(lambda d: -math.expm1(d / depth) - ratio * (1 - power * math.exp(-d)), power)


def scale_at_effective_depth(effective_depth: float, power: float) -> float:
    """The scale Q where depth grows as well, and the prior alone would not move it.

    >>> round(scale_at_effective_depth(2.0, 2.5), 5)
    1.89464

    Q = exp(d), where d = -effective_depth (1 - power exp(-d)): 1 without depth, `power` in the
    limit of infinite depth, which is the scale of the largest evidence.

    Args:
        effective_depth: hidden layers times training rows over width, at least 0; layers are to be
            few beside the width.
        power: y^T K^-1 y / n, above 0.

    Raises ValueError for values out of these ranges.

    Source: hanin2023, effective depth.
    """
    _check(effective_depth=effective_depth, power=power)
    return _scale(lambda d: -d - effective_depth * (1 - power * math.exp(-d)), power)


def _scale(gap: Callable[[float], float], power: float) -> float:
    """exp(d) where the gap is zero, which is between 1, where its first part is, and the power."""
    low, high = sorted((0.0, math.log(power)))
    found = scipy.optimize.brentq(gap, low, high, xtol=1e-15)
    return math.exp(found)  # type: ignore[arg-type]


def _check(**values: float) -> None:
    for name, value in values.items():
        if not np.isfinite(value) or value < 0 or (name == "power" and value == 0):
            wanted = "above 0" if name == "power" else "at least 0"
            raise ValueError(f"{name} is {value}: give a finite number, {wanted}.")
