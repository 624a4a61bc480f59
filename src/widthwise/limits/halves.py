"""Limits that are sampled in two independent halves: what their difference tells."""

import numpy as np
from jaxtyping import Float

HALVES = 2  # independent solutions, whose difference tells the error of their mean
CHAOS = 0.2  # difference of the halves, in units of the targets, that no sampling explains


def largest_gap(one: Float[np.ndarray, "t n k"], two: Float[np.ndarray, "t n k"]) -> float:
    """Between the halves' functions, rms over rows and outputs, at the worst logged step."""
    return float(np.sqrt(np.mean((one - two) ** 2, axis=(1, 2))).max())


def error_told(halves: str, gap: float) -> str:
    """The standard error of the halves' mean."""
    return (
        f"{halves}; the predictions' standard error is {gap / 2:.2g} (rms over rows and outputs, "
        "at the logged step where it is largest)."
    )


def chaos_told(gap: float, targets: Float[np.ndarray, "n k"], remedy: str) -> tuple[str, ...]:
    """That the halves follow no one function, where they do not."""
    if gap <= CHAOS * float(np.sqrt(np.mean(targets**2))):
        return ()
    return (
        f"The two halves come {gap:.2g} apart: past the edge of stability training is chaotic and "
        f"no one function is its limit; {remedy}.",
    )


def growth_told(lost: Float[np.ndarray, " t"]) -> tuple[str, ...]:
    """That training made the loss larger, where it did."""
    if lost[-1] > lost[0]:
        return ("The training loss ended above its start: lr is past what is stable.",)
    return ()
