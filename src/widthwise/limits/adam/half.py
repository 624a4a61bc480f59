"""Half of the neurons of an Adam limit, while they are trained and when they predict."""

import concurrent.futures
import functools
import itertools
from typing import NamedTuple, final

import numba
import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.blocks import TENSORS, Batch, Memory, blocks_of
from widthwise.limits.adam.compiled import CHUNK
from widthwise.limits.adam.images import AbstractImages
from widthwise.limits.adam.linear import Kernels, Lines, kernels_of, moves
from widthwise.limits.adam.neurons import CHUNKS, Counts, Layer, empty, fill
from widthwise.limits.adam.pace import NO_STEP, Pace
from widthwise.limits.adam.sites import Sites

PARTS = 8  # of a block's neurons, whose sums are added in their order, whatever thread has them
ROWS = 64  # new rows are filled up to multiples of it, so that sums run alike for few and many
SLAB = 1024  # new rows that are carried at once


class Moved(NamedTuple):
    """Sums of steps: of every block's entries less their linear part, the sums of that, and of the
    readout's bias."""

    blocks: tuple[Float[np.ndarray, "c j w"], ...]
    lines: Float[np.ndarray, "l t n k"]
    bias: Float[np.ndarray, " k"]


class Neurons(NamedTuple):
    """What a half is drawn from; equal ones draw equal neurons."""

    sites: Sites
    counts: Counts
    images: AbstractImages
    half: int


def drawn(neurons: Neurons) -> tuple[Layer, ...]:
    """A half's neurons at the training rows."""
    images = neurons.images.at(None)
    layers = empty(neurons.sites, neurons.counts, len(images.forward[0].spread))
    for group in range(neurons.counts.groups):
        fill(neurons.sites, images, layers, neurons.half, group, group)
    return layers


class Kept(NamedTuple):
    """All state of a half in training."""

    memories: tuple[Memory, ...]  # of every block
    lines: Lines
    bias: Memory  # of the readout


@final
class Half:
    """Moves the weights of a half; `kept` is all its state."""

    def __init__(
        self, sites: Sites, counts: Counts, layers: tuple[Layer, ...], kernels: Kernels | None,
        x: Float[np.ndarray, "n d"],
    ):  # fmt: skip
        self._bias, self._layers, self._kernels = sites.readout.bias, layers, kernels
        self._blocks = blocks_of(sites, counts)
        self.kept = Kept(
            tuple(
                Memory.zeros((block.chunks, block.entries(x.shape[1], counts.outputs), CHUNK))
                for block in self._blocks
            ),
            Lines.at_rest(len(self._blocks), len(x), counts.outputs),
            Memory(*np.zeros((3, 1, 1, counts.outputs))),
        )

    def visit(
        self, pace: Pace, batch: Batch, chi: Float[np.ndarray, "b k"], following: Batch
    ) -> Float[np.ndarray, "q k"]:
        """A step on a batch, and what all steps have taken from the outputs of the rows that
        follow."""
        memories, lines, bias = self.kept
        tasks = [
            (number, range(*ends))
            for number, block in enumerate(self._blocks)
            for ends in itertools.pairwise(np.linspace(0, block.chunks, PARTS + 1).astype(int))
        ]
        chi = np.ascontiguousarray(chi, np.float32)
        out = np.zeros((len(tasks), len(following.rows), bias.w.shape[2]), np.float32)
        fits = np.zeros((len(tasks), TENSORS, 2))

        def one(task):
            number, own = tasks[task]
            self._blocks[number].visit(
                self._layers, own, memories[number], pace, batch, chi, following,
                lines.slopes[number], fits[task], out[task],
            )  # fmt: skip

        list(_pool().map(one, range(len(tasks))))
        taken = out.sum(axis=0, dtype=np.float64)
        if len(batch.rows):
            _step(bias, pace, self._bias.gain * chi.sum(axis=0, dtype=np.float64))
        if self._kernels is not None:
            if len(batch.rows):
                fits = fits.reshape(len(self._blocks), PARTS, TENSORS, 2).sum(axis=1)
                lines = lines.stepped(pace, batch.rows, chi, fits)
                self.kept = Kept(memories, lines, bias)
            taken += moves(self._kernels, lines.sums, following.rows)
        return taken + self._bias.gain * self._bias.rate * bias.w[0, 0]

    def outputs(self, rows: Batch) -> Float[np.ndarray, "q k"]:
        """What all steps have taken from the outputs of these rows."""
        none = np.zeros((0, self.kept.bias.w.shape[2]))
        return self.visit(NO_STEP, Batch.of(rows.x[:0]), none, rows)

    def moved(self) -> Moved:
        """The sums of steps as they stand."""
        memories, lines, bias = self.kept
        return Moved(tuple(memory.w.copy() for memory in memories), lines.sums, bias.w[0, 0].copy())


def _step(memory: Memory, pace: Pace, gradient: Float[np.ndarray, " k"]) -> None:
    memory.m[:] = pace.keep1 * memory.m + pace.take1 * gradient
    seen = memory.m if pace.of_mean else gradient
    memory.v[:] = pace.keep2 * memory.v + pace.take2 * seen**2
    root = np.sqrt(memory.v / pace.whole2) + pace.eps
    memory.w[:] += pace.lr * (memory.m / pace.whole1) / root


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(numba.get_num_threads())


def taken(
    neurons: Neurons, moved: tuple[Moved, ...], x: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "t m k"]:
    """What the steps have taken from the initial function at new rows, for several sums of steps.

    A row's outputs do not depend on the rows beside it.
    """
    found = [_slab(neurons, moved, x[i : i + SLAB]) for i in range(0, max(len(x), 1), SLAB)]
    bias = neurons.sites.readout.bias
    steps = np.stack([one.bias for one in moved])[:, None]
    return np.concatenate(found, axis=1) + bias.gain * bias.rate * steps


def _slab(neurons: Neurons, moved: tuple[Moved, ...], x) -> Float[np.ndarray, "t m k"]:
    """Without the readout's bias."""
    sites, counts = neurons.sites, neurons.counts
    out = np.zeros((len(moved), len(x), counts.outputs))
    if not len(x):
        return out
    padded = np.pad(x, ((0, -len(x) % ROWS), (0, 0)), mode="edge")
    images, blocks, rows = neurons.images.at(padded), blocks_of(sites, counts), Batch.of(padded)
    if (kernels := kernels_of(blocks, neurons.images, padded)) is not None:
        for found, sums in zip(out, moved, strict=True):
            found += moves(kernels, sums.lines, rows.rows)[: len(x)]
    for group in range(counts.groups):
        own = Counts(1, int(group < counts.input_groups), counts.outputs)
        layers = empty(sites, own, len(padded))
        fill(sites, images, layers, neurons.half, group)
        place = slice(group * CHUNKS, (group + 1) * CHUNKS)
        for found, sums in zip(out, moved, strict=True):
            for block, whole in zip(blocks, sums.blocks, strict=True):
                if len(w := whole[place]):  # none where the inputs' weights have fewer neurons
                    found += block.moves(layers, w, rows)[: len(x)]
    return out
