"""What the linear part of all steps does to the function, which tangent kernels tell exactly.

A step is close to a number, the line, times the averaged gradient, and what gradients do to the
function is a tangent kernel. Only the rest of the steps is left to the sampled entries, and a mean
of less varies less. Any line is right in the mean; each is fitted to the entries' steps before it,
which takes from the rest most of its variance.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from widthwise.limits.adam.blocks import TENSORS, AbstractBlock
from widthwise.limits.adam.images import AbstractImages
from widthwise.limits.adam.pace import Pace

Kernels = tuple[tuple[Float[np.ndarray, "m n"], ...], ...]  # of every block's tensors


class Lines(NamedTuple):
    """The linear parts of a half's steps so far, and the lines of the step that comes next."""

    mean: Float[np.ndarray, "n k"]  # the loss's slopes, averaged as the gradients are
    sums: Float[np.ndarray, "l t n k"]  # of step size times line times that
    slopes: Float[np.ndarray, "l t"]

    @classmethod
    def at_rest(cls, blocks: int, rows: int, outputs: int) -> "Lines":
        """Before the first step, which has no line."""
        shape = rows, outputs
        return cls(
            np.zeros(shape), np.zeros((blocks, TENSORS, *shape), np.float32),
            np.zeros((blocks, TENSORS), np.float32),
        )  # fmt: skip

    def stepped(
        self,
        pace: Pace,
        rows: Int[np.ndarray, " b"],
        chi: Float[np.ndarray, "b k"],
        fits: Float[np.ndarray, "l t 2"],
    ) -> "Lines":
        """After a step on a batch, whose entries gave these products (see compiled.py)."""
        mean = pace.keep1 * self.mean
        np.add.at(mean, rows, pace.take1 * chi)  # a row may stand in a batch twice
        moved = pace.lr / pace.whole1 * self.slopes
        sums = pace.left * self.sums + moved[:, :, None, None] * mean.astype(np.float32)
        both, own = fits[..., 0], fits[..., 1]
        slopes = pace.whole1 * np.divide(both, own, out=np.zeros_like(both), where=own > 0)
        return Lines(mean, sums, slopes.astype(np.float32))


def moves(
    kernels: Kernels, sums: Float[np.ndarray, "l t n k"], rows: Int[np.ndarray, " q"]
) -> Float[np.ndarray, "q k"]:
    """What linear parts have taken from the outputs of these rows of the kernels."""
    out = np.zeros((len(rows), sums.shape[-1]))
    for block, own in zip(kernels, sums, strict=True):
        for kernel, one in zip(block, own, strict=False):  # readout weights have no bias beside
            out += (kernel if len(rows) == len(kernel) else kernel[rows]) @ one
    return out


def kernels_of(
    blocks: tuple[AbstractBlock, ...], images: AbstractImages, x: Float[np.ndarray, "m d"] | None
) -> Kernels | None:
    """Of rows and the training rows, or of the latter; None where these are too many."""
    laws = images.laws(x)
    if laws is None:
        return None
    return tuple(block.kernels(laws) for block in blocks)
