"""Width and depth of a deep linear network, chosen by the evidence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from widthwise.finite.deep_linear.one_output import log_evidence
from widthwise.finite.deep_linear.several_outputs import mixture_of
from widthwise.solve.given import Widths, given_widths
from widthwise.solve.turned import Turned


class Choice(NamedTuple):
    """The log evidence of each width (rows) at each depth (columns), and where it is largest;
    `standard_error` is that of its draws, 0 where it is exact."""

    log_evidence: Float[np.ndarray, "w d"]
    standard_error: Float[np.ndarray, "w d"]
    width: int | float
    depth: int


def evidence_grid(
    kernel: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    widths: Widths,
    depths: Sequence[int],
    noise: float = 0.0,
    *,
    samples: int = 4000,
    seed: int = 0,
) -> Choice:
    """Scores deep linear networks by their evidence, and chooses the best.

    >>> found = evidence_grid(np.eye(4), 3 * np.ones((4, 1)), (4, 64, np.inf), (1, 4))
    >>> found.log_evidence.round(1).tolist()
    [[-14.6, -13.1], [-19.5, -16.8], [-21.7, -21.7]]
    >>> found.width, found.depth
    (4, 4)

    Args:
        kernel, targets, noise: as of `scale_mixture`, or with several columns of targets as of
            `outputs_mixture`. The kernel is that of all depths, as where the weights' variances are
            one over the fan-in.
        widths: of the hidden layers, each the same; infinity is the Gaussian process.
        depths: how many hidden layers, 0 or more.
        samples, seed: of the draws, which several outputs take; one is exact without.

    Raises ValueError as `scale_mixture` or `outputs_mixture`, naming the width and the depth that
    draws do not reach, and for depths below 0.

    Source: hanin2023, evidence and posterior without noise; bassetti2024, integral representation
    of the prior.
    """
    if any(depth < 0 for depth in depths) or not len(widths) or not len(depths):
        raise ValueError(
            f"widths are {tuple(widths)!r} and depths {tuple(depths)!r}: give one of each at "
            "least, depths of 0 or more."
        )
    problem = Turned.of(kernel, targets, noise)
    single = problem.targets.shape[1] == 1

    def scored(width: int | float, depth: int) -> tuple[float, float]:
        each = given_widths((width,) * depth)
        if single:
            return log_evidence(problem, each), 0.0
        try:
            draws = mixture_of(problem, each, samples, seed).draws
        except ValueError as error:
            raise ValueError(f"At width {width} and depth {depth}: {error}") from None
        return draws.log_evidence, draws.standard_error

    table = np.array([[scored(width, depth) for depth in depths] for width in widths])
    row, column = divmod(int(np.argmax(table[..., 0])), len(depths))
    return Choice(table[..., 0], table[..., 1], widths[row], depths[column])
