"""Width and depth of a deep linear network, chosen by the evidence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from widthwise.finite.deep_linear.one_output import log_evidence, one_output_of
from widthwise.solve.given import Widths, given_widths


class Choice(NamedTuple):
    """The log evidence of each width (rows) at each depth (columns), and where it is largest."""

    log_evidence: Float[np.ndarray, "w d"]
    width: int | float
    depth: int


def evidence_grid(
    kernel: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    widths: Widths,
    depths: Sequence[int],
    noise: float = 0.0,
) -> Choice:
    """Scores deep linear networks with one output by their evidence, and chooses the best.

    >>> found = evidence_grid(np.eye(4), 3 * np.ones((4, 1)), (4, 64, np.inf), (1, 4))
    >>> found.log_evidence.round(1).tolist()
    [[-14.6, -13.1], [-19.5, -16.8], [-21.7, -21.7]]
    >>> found.width, found.depth
    (4, 4)

    Args:
        kernel, targets, noise: as of `scale_mixture`. The kernel is that of all depths, as where
            the weights' variances are one over the fan-in.
        widths: of the hidden layers, each the same; infinity is the Gaussian process.
        depths: how many hidden layers, 0 or more.

    Raises ValueError as `scale_mixture`, and for depths below 0.

    Source: hanin2023, evidence and posterior without noise.
    """
    if any(depth < 0 for depth in depths) or not len(widths) or not len(depths):
        raise ValueError(
            f"widths are {tuple(widths)!r} and depths {tuple(depths)!r}: give one of each at "
            "least, depths of 0 or more."
        )
    problem = one_output_of(kernel, targets, noise)
    table = np.array(
        [[log_evidence(problem, given_widths((n,) * d)) for d in depths] for n in widths]
    )
    row, column = divmod(int(np.argmax(table)), len(depths))
    return Choice(table, widths[row], depths[column])
