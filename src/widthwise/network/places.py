"""Embeddings of positions, and grids that are joined."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from widthwise import settings
from widthwise.network.context import Context
from widthwise.network.conv import grid_of, not_on_graphs
from widthwise.network.joining import alike, check_independent, run_each
from widthwise.network.layer import AbstractBranches, AbstractLayer, Identity, branched
from widthwise.network.moments import AbstractMoments, Mixture
from widthwise.network.pool import needs_grid
from widthwise.network.signal import OUTPUTS, Signal, Size
from widthwise.network.weight import Weight

Decay = float | Callable[[np.ndarray], Any]  # of positions' likeness with their distance
ROUNDING = 1e-6  # of a function's correlations, which may be computed in float32


@functools.lru_cache(maxsize=8)
def correlations(shape: tuple[int, ...], decay: Decay | None) -> np.ndarray:
    """Of the embeddings of positions of a grid: exp(-decay d) at squared distance d, what a
    function makes of their offsets, or none.

    >>> correlations((3,), 1.0)[0].round(2).tolist()
    [1.0, 0.37, 0.02]

    Raises ValueError for a function whose values are no correlations.
    """
    if decay is None:
        return np.eye(math.prod(shape))
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))
    offsets = at[:, None] - at
    if not callable(decay):
        return np.exp(-decay * np.sum(offsets**2, axis=2))
    with jax.ensure_compile_time_eval():  # a function of jax.numpy, in a program that is traced
        found = np.asarray(decay(offsets), dtype=np.float64)
    name, grid = getattr(decay, "__name__", repr(decay)), " x ".join(map(str, shape))
    if found.shape != offsets.shape[:2]:
        raise ValueError(
            f"The decay {name} made shape {found.shape} of offsets {offsets.shape}: give a "
            "function that makes one number of the last axis."
        )
    alike = np.allclose(found, found.T, atol=ROUNDING)
    if not (alike and np.allclose(np.diagonal(found), 1.0, atol=ROUNDING)) or (
        np.linalg.eigvalsh(found)[0] < -ROUNDING * len(found)
    ):
        raise ValueError(
            f"The decay {name} makes no correlations of a grid of {grid}: give a function that is "
            "1 at offset 0, even, and positive definite, such as exp(-|offset|)."
        )
    return found


@functools.lru_cache(maxsize=8)
def correlating(shape: tuple[int, ...], decay: Decay | None) -> np.ndarray:
    """A matrix that makes embeddings with `correlations` of independent ones."""
    if decay is None:
        return np.eye(math.prod(shape))
    # slow decays leave eigenvalues that round below zero, which no Cholesky factor bears
    values, vectors = np.linalg.eigh(correlations(shape, decay))
    return vectors * np.sqrt(np.maximum(values, 0.0))


def check_decay(layer: AbstractLayer, name: str) -> None:
    """Refuses a field that is neither None, nor a function, nor a number over 0."""
    decay = getattr(layer, name)
    if decay is not None and not callable(decay):
        settings.number(layer, name, above=0)


def check_places(decay: Decay | None, incoming: Signal) -> None:
    """Refuses a function that makes no correlations of the grid that arrives, if it is known."""
    if callable(decay) and incoming.positions is not None:
        correlations(incoming.shape, decay)  # type: ignore[arg-type]


class PositionEmbedding(AbstractLayer):
    """Gaussian features of each position, the same for every input, and trained.

    >>> Unflatten() >> Conv() >> (Identity() + PositionEmbedding()) >> Relu() >> Flatten()
    Unflatten() >> Conv() >> (Identity() + PositionEmbedding()) >> Relu() >> Flatten()

    Added to what is there, or beside it: `Concatenate((Identity(), PositionEmbedding()))`.

    Args:
        times: features in units of the width.
        variance: of the features.
        decay: positions at squared distance d have the correlation exp(-decay d); None makes all of
            them independent; a function makes correlations (p, p) of the offsets (p, p, axes)
            between positions, as `lambda offsets: np.exp(-np.abs(offsets).sum(-1))`.
        lr_multiplier: as for `Dense`.
    """

    source: ClassVar[str] = "hron2020, section 4"
    times: int = eqx.field(default=1, static=True)
    variance: float = 1.0
    decay: Decay | None = eqx.field(default=None, static=True)
    lr_multiplier: float = 1.0

    def __check_init__(self):
        settings.whole(self, "times")
        settings.number(self, "variance", above=0)
        settings.number(self, "lr_multiplier", low=0)
        check_decay(self, "decay")

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        check_places(self.decay, incoming)
        return incoming.remade(Size(times=self.times), True)

    def weights(self, incoming: Signal) -> Weight:
        if incoming.positions is None:
            raise ValueError(f"The grid that arrives at {self!r} is not known.")
        return Weight(
            None, Size(times=self.times), self.variance, self.variance**0.5, self.lr_multiplier,
            copies=(incoming.positions,),
        )  # fmt: skip

    def apply(self, weights, x):
        root = jnp.asarray(correlating(x.shape[:-1], self.decay), x.dtype)
        return (root @ weights).reshape(*x.shape[:-1], -1)

    def kernel(self, weights, moments):
        grid = grid_of(moments)
        alone = grid_of(grid.times(0.0))
        return alone.at_positions(correlations(grid.shape, self.decay), weights)

    def fresh(self) -> bool:
        return True


class ConcatenatePositions(AbstractBranches):
    """The positions of all branches one after another, along one axis of the grid.

    >>> Conv() >> ConcatenatePositions((Conv(), Identity())) >> Relu() >> Flatten()
    Conv() >> ConcatenatePositions(branches=(Conv(), Identity())) >> Relu() >> Flatten()

    All but one branch end in fresh weights: they are uncorrelated then.

    Args:
        branches: networks that read one input.
        axis: of the grid.
    """

    source: ClassVar[str] = "yang2019, section 2"
    branches: tuple[AbstractLayer, ...] = eqx.field(default=(Identity(),), converter=branched)
    axis: int = eqx.field(default=0, static=True)

    def __check_init__(self):
        settings.whole(self, "axis", low=0)
        check_independent(self, self.branches)
        self.signal(Signal())

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        not_on_graphs(self, incoming)
        leaving = [branch.signal(incoming) for branch in self.branches]
        if any(x.size == OUTPUTS for x in leaving):
            raise ValueError(f"A branch of {self!r} ends in Readout(): a readout stands last.")
        if any(x.shape is not None and self.axis >= len(x.shape) for x in leaving):
            raise ValueError(
                f"{self!r} joins along axis {self.axis}, and its branches leave "
                f"{' and '.join(map(str, leaving))}: give an axis that they have."
            )
        extents = [None if x.shape is None else x.shape[self.axis] for x in leaving]
        found = alike(self, [self._open(x) for x in leaving])
        if found.shape is None:
            return found
        total = None if None in extents else sum(extents)  # type: ignore[arg-type]
        return found.moved((*found.shape[: self.axis], total, *found.shape[self.axis + 1 :]))

    def _open(self, signal: Signal) -> Signal:
        """With any extent along the axis."""
        if signal.shape is None:
            return signal
        shape = (*signal.shape[: self.axis], None, *signal.shape[self.axis + 1 :])
        return dataclasses.replace(signal, shape=shape)

    def apply(self, weights, x):
        return jnp.concatenate(run_each(self.branches, weights, x), axis=self.axis)

    def after(self, context: Context) -> Context:
        found = [branch.after(context) for branch in self.branches]
        parts = [one.present for one in found if one is not None and one.present is not None]
        return Context(jnp.concatenate(parts, axis=self.axis))

    def kernel(self, weights, moments):
        pairs = zip(self.branches, weights, strict=True)
        found = [branch.kernel(own, moments) for branch, own in pairs]
        extents = [_shape(out)[self.axis] for out in found]
        starts, total = np.cumsum([0, *extents[:-1]]).tolist(), sum(extents)
        parts = [
            out.on_grids(lambda grid, start=start: grid.placed(self.axis, start, total))
            for out, start in zip(found, starts, strict=True)
        ]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.add(part)
        return joined


def _shape(moments: AbstractMoments) -> tuple[int, ...]:
    parts = moments.parts if isinstance(moments, Mixture) else moments
    return grid_of(parts).shape
