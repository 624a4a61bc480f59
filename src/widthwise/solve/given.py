"""Kernel matrices, targets and widths that a caller gives, checked."""

import math
from collections.abc import Sequence
from numbers import Integral

import numpy as np
from jaxtyping import Float

Widths = Sequence[int | float]  # float for inf

ASYMMETRY = 1e-4  # of an entry over the largest one: kernels may come in float32


def given_problem(kernel, targets) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n k"]]:
    """The kernel of the training rows, symmetric to the last digit, and their targets.

    Raises ValueError for shapes that do not fit, and for what is not finite or not symmetric.
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 2 or len(kernel) != kernel.shape[1] or not len(kernel):
        raise ValueError(
            f"kernel has shape {kernel.shape}: give that of all training rows, (n, n)."
        )
    if not np.abs(kernel - kernel.T).max() <= ASYMMETRY * np.abs(kernel).max():
        raise ValueError(
            "kernel is not finite and symmetric: give that of the training rows against themselves."
        )
    return (kernel + kernel.T) / 2, given_targets(targets, len(kernel), f"kernel {kernel.shape}")


def given_targets(targets, rows: int, beside: str) -> Float[np.ndarray, "n k"]:
    """Targets with so many rows as what stands beside them."""
    targets = np.asarray(targets, dtype=np.float64)
    if targets.ndim != 2 or len(targets) != rows:
        raise ValueError(
            f"targets have shape {targets.shape} and {beside}: give a row for each of "
            "its rows and a column for each output."
        )
    if not np.isfinite(targets).all():
        raise ValueError("targets are not finite: leave rows without a target out.")
    return targets


def given_cross(cross, rows: int) -> Float[np.ndarray, "m n"]:
    """The kernel of new rows against so many training rows."""
    cross = np.asarray(cross, dtype=np.float64)
    if cross.ndim != 2 or cross.shape[1] != rows:
        raise ValueError(
            f"cross has shape {cross.shape}: give new rows against the {rows} training rows, "
            f"(m, {rows})."
        )
    return cross


def given_shape(name: str, values, shape: tuple[int, ...]) -> np.ndarray:
    """Values that have this shape and are finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}: give {shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite: rescale the inputs.")
    return values


def given_noise(noise: float) -> float:
    """A variance of noise."""
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is {noise}: give a variance, at least 0.")
    return float(noise)


def given_widths(widths: Widths) -> tuple[int, ...]:
    """The widths below infinity: an infinite layer passes its kernel on as it is.

    >>> given_widths([64, math.inf, 8])
    (64, 8)

    Raises ValueError for what is no width.
    """
    for width in widths:
        if width != math.inf and (not isinstance(width, Integral) or width < 1):
            raise ValueError(
                f"widths are {tuple(widths)!r}: give whole numbers, at least 1, or infinity."
            )
    return tuple(int(width) for width in widths if width != math.inf)


def given_channels(widths: Widths) -> tuple[int, ...]:
    """Widths that are all below infinity, at least one.

    >>> given_channels([3, 5])
    (3, 5)

    Raises ValueError for others.
    """
    if not len(widths) or len(given_widths(widths)) < len(widths):
        raise ValueError(
            f"widths are {tuple(widths)!r}: give whole numbers, one a hidden layer, at least one."
        )
    return given_widths(widths)
