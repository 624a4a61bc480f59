"""Linear descent in function space, in closed form through the spectrum of its kernel.

Full-batch steps and flows on half the mean squared error shrink the residual along each
eigenvector of the kernel on its own: by h = response(s / rows, t), whatever the other ones do.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float


class Spectrum(NamedTuple):
    """Eigenvalues (ascending, not negative) and eigenvectors (columns) of a kernel matrix."""

    values: Float[np.ndarray, " n"]
    vectors: Float[np.ndarray, "n n"]

    @classmethod
    def of(cls, matrix: Float[np.ndarray, "n n"]) -> "Spectrum":
        values, vectors = scipy.linalg.eigh(matrix, check_finite=False)
        return cls(np.maximum(values, 0.0), vectors)  # below zero is rounding

    def apply(
        self, diagonal: Float[np.ndarray, " n"], right: Float[np.ndarray, "n k"]
    ) -> Float[np.ndarray, "n k"]:
        """The function of the kernel that has this diagonal in its eigenbasis, times `right`."""
        return self.vectors @ (diagonal[:, None] * (self.vectors.T @ right))


def largest_eigenvalue(matrix: Float[np.ndarray, "n n"]) -> float:
    """The largest eigenvalue of a symmetric matrix.

    >>> round(largest_eigenvalue(np.diag([1.0, 3.0])), 12)
    3.0
    """
    if len(matrix) < 32:
        return float(scipy.linalg.eigvalsh(matrix)[-1])
    start = np.ones(len(matrix))  # fixed, so that the answer is the same every time
    found = scipy.sparse.linalg.eigsh(matrix, k=1, v0=start, return_eigenvectors=False)
    return float(found[0])


def steps_fraction(
    rate: Float[np.ndarray, " n"], steps: int, momentum: float = 0.0
) -> Float[np.ndarray, " n"]:
    """1 - h after `steps` heavy-ball steps from rest, where one plain step leaves 1 - rate.

    >>> steps_fraction(np.array([0.5, 2.5]), 2).tolist()
    [0.75, -1.25]
    """
    if momentum == 0.0:
        # expm1 and log1p keep the digits of eigenvalues whose residual has hardly moved
        slow = rate < 1.0
        shrunk = -np.expm1(steps * np.log1p(-np.where(slow, rate, 0.0)))
        with np.errstate(over="ignore"):
            return np.where(slow, shrunk, 1.0 - (1.0 - np.where(slow, 0.0, rate)) ** steps)
    done, velocity = np.zeros_like(rate), np.zeros_like(rate)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            velocity = momentum * velocity + rate * (1.0 - done)
            done = done + velocity
    return done


def flow_fraction(
    rate: Float[np.ndarray, " n"], time: float, friction: float | None = None
) -> Float[np.ndarray, " n"]:
    """1 - h after flowing for `time`: h' = -rate h, or, with friction, h'' + friction h' = -rate h
    from rest.

    >>> flow_fraction(np.array([1.0]), math.log(2.0)).round(12).tolist()
    [0.5]
    """
    if math.isinf(time):
        return np.ones_like(rate)
    if friction is None:
        return -np.expm1(-rate * time)
    # The two roots of z^2 + friction z + rate; sinh(w t) / w has the limit t where they meet.
    half = friction / 2
    root = np.sqrt((half**2 - rate).astype(complex))
    phase = root * time
    small = np.abs(phase) < 1e-6
    safe = np.where(small, 1.0, root)
    # e^(-half t) joined to each exponential before it can overflow
    up, down = np.exp(phase - half * time), np.exp(-phase - half * time)
    shared = math.exp(-half * time) * time * (1 + phase**2 / 6)
    sine = np.where(small, shared, (up - down) / (2 * safe))
    return 1.0 - np.real((up + down) / 2 + half * sine)
