"""A Gaussian matrix between two layers, drawn only in the directions that it meets.

Let e_k be an orthonormal basis of the features that have come to it and d_j one of the gradients
that have come back. Given what is known of W on these, W on a new direction is a Gaussian field
that is independent of everything before, plus what adjointness demands (the responses A and B of
dynamical mean field theory, by Gaussian integration by parts). So

    W = gain * (sum_k F_k e_k + sum_j d_j H_j) + sum_jk d_j C_jk e_k

with fresh fields F_k in the layer after and H_j in the layer before, and training moves C only.
"""

from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float

from widthwise.limits.mean_field.samples import AbstractSamples, Block, Stack
from widthwise.limits.mean_field.sites import Tensor


class Pace(NamedTuple):
    """One step's settings."""

    lr: float
    momentum: float
    decay: float


class Link(NamedTuple):
    """An affine map into a layer as it stands: enough to carry any features through it."""

    weight: float  # of a sample in a mean over the layer before
    basis: Block  # e
    images: Block  # F
    gain: float  # of F
    returned: Block  # d
    answers: Block  # H
    moved: Float[np.ndarray, "j k"]  # C
    spares: Block  # Gaussians of the layer after, for features outside the basis
    spare_gain: float
    bias: Float[np.ndarray, " s"]

    def carry(self, features: Block, together: bool) -> Block:
        """Pre-activations for rows of features that may be new.

        What the basis does not hold meets a fresh Gaussian: one and the same for all rows, which
        leaves averages over neurons of each row right, or, `together`, of pairs of rows too.
        """
        along = features @ self.basis.T * self.weight
        rest = features - along @ self.basis
        if together:
            values, vectors = np.linalg.eigh(rest @ rest.T * self.weight)
            new = vectors * np.sqrt(np.maximum(values, 0.0)) @ self.spares[: len(rest)]
        else:
            lengths = np.sqrt(np.einsum("ps,ps->p", rest, rest) * self.weight)
            new = lengths[:, None] * self.spares[0]
        answered = (features @ self.answers.T) * (self.weight * self.gain)
        back = (along @ self.moved.T + answered) @ self.returned
        return self.gain * (along @ self.images) + self.spare_gain * new + back + self.bias


@final
class Matrix:
    """The matrix between two layers while it is trained.

    Args:
        before, after: the layers' spaces of vectors.
        tensor: its constants.
        tolerance: share of a row's mean square that its expansion may leave out.
    """

    def __init__(
        self, before: AbstractSamples, after: AbstractSamples, tensor: Tensor, tolerance: float
    ):
        self._before, self._after, self._tensor = before, after, tensor
        self._tolerance, self._keep = tolerance, 1.0
        self._basis, self._answers = before.stack(), before.stack()
        self._returned, self._images = after.stack(), after.stack()
        none = np.zeros((0, 0), before.dtype)
        self._moved, self._velocity = none, none  # C and its velocity
        self._largest = [0.0, 0.0]  # mean square of rows so far: features, gradients
        self._met: tuple[np.ndarray, np.ndarray] = none, none
        self.left_out = 0.0  # the largest share of a block's square that was dropped

    @property
    def ranks(self) -> tuple[int, int]:
        """Directions of features and of gradients."""
        return len(self._basis.rows), len(self._returned.rows)

    @property
    def _gain(self) -> float:
        return self._keep * self._tensor.std

    def forward(self, features: Block) -> Block:
        """What the matrix makes of rows of features; new directions join the basis."""
        new = self._new(features, self._basis, self._before, side=0)
        if len(new):
            images = self._after.fresh(len(new))
            self._basis.add(new)
            self._images.add(images)
            self._grow(0, len(new))
        along = self._before.inner(features, self._basis.rows)
        self._met = along, self._met[1]
        mixed = along @ self._moved.T + self._gain * self._before.inner(
            features, self._answers.rows
        )
        return self._gain * (along @ self._images.rows) + mixed @ self._returned.rows

    def backward(self, gradients: Block) -> Block:
        """What its transpose makes of rows of gradients; new directions join the basis."""
        new = self._new(gradients, self._returned, self._after, side=1)
        if len(new):
            answers = self._before.fresh(len(new))
            self._returned.add(new)
            self._answers.add(answers)
            self._grow(len(new), 0)
        along = self._after.inner(gradients, self._returned.rows)
        self._met = self._met[0], along
        mixed = along @ self._moved + self._gain * self._after.inner(gradients, self._images.rows)
        return self._gain * (along @ self._answers.rows) + mixed @ self._basis.rows

    def step(self, pace: Pace) -> None:
        """One step along the gradient of the rows last met."""
        features, gradients = self._met
        shrink = 1.0 - pace.lr * pace.decay if self._tensor.trained else 1.0
        self._keep *= shrink
        self._velocity = pace.momentum * self._velocity + gradients.T @ features
        self._moved = shrink * self._moved - pace.lr * self._tensor.step * self._velocity

    def links(self, spares: Block, bias, drawn_bias) -> tuple[Link, Link]:
        """As it stands, and as it was drawn."""
        std, gain = self._tensor.std, self._gain
        now = Link(
            self._before.weight, self._basis.rows, self._images.rows, gain, self._returned.rows,
            self._answers.rows, self._moved, spares, gain, bias,
        )  # fmt: skip
        moved = np.zeros_like(self._moved)
        drawn = now._replace(gain=std, moved=moved, spare_gain=std, bias=drawn_bias)
        return now, drawn

    def _grow(self, rows: int, columns: int) -> None:
        more = ((0, rows), (0, columns))
        self._moved, self._velocity = np.pad(self._moved, more), np.pad(self._velocity, more)

    def _new(self, block: Block, known: Stack, samples: AbstractSamples, side: int) -> Block:
        """An orthonormal basis of what the known directions leave of a block.

        Directions are dropped that carry less than `tolerance` times the largest mean square of a
        row so far (rows then lose at most that share, in the mean), and whatever finds no room.

        Raises FloatingPointError where the block is not finite.
        """
        mean = float(np.einsum("ps,ps->", block, block)) * samples.weight / len(block)
        if not np.isfinite(mean):
            raise FloatingPointError
        self._largest[side] = max(self._largest[side], mean)
        along = samples.inner(block, known.rows)
        values, vectors = np.linalg.eigh(samples.inner(block, block) - along @ along.T)
        wanted = int(np.sum(values > self._tolerance * self._largest[side]))
        kept = len(values) - int(min(wanted, self._before.room, self._after.room))
        square = max(self._largest[side] * len(block), 1e-300)
        lost = float(np.maximum(values[:kept], 0.0).sum()) / square
        self.left_out = max(self.left_out, lost)
        if kept == len(values):
            return block[:0]
        part = vectors[:, kept:].T
        new = part @ block - (part @ along) @ known.rows
        new -= samples.inner(new, known.rows) @ known.rows  # once more, for the digits
        values, vectors = np.linalg.eigh(samples.inner(new, new))
        return (vectors / np.sqrt(values)).T @ new
