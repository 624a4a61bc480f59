"""The neurons of one layer, as they stand for infinitely many: a space of vectors with a mean.

Fields of a layer (pre-activations, features, gradients) are vectors over its samples, and every
average over neurons is an inner product of two of them. Where the network is linear all fields are
combinations of independent Gaussians: their coordinates are then exact, and no sample is drawn.
"""

import abc
import math
from typing import ClassVar, final

import numpy as np
import scipy.linalg
from jaxtyping import Float

Block = Float[np.ndarray, "_ _"]  # vectors over the samples of a layer, one a row


class Full(Exception):
    """There are no more coordinates for independent Gaussians."""


@final
class Stack:
    """Rows that come one block after another, side by side in memory; room doubles as it fills."""

    def __init__(self, size: int, dtype: str):
        self._room, self._count = np.empty((16, size), dtype), 0

    @property
    def rows(self) -> Block:
        return self._room[: self._count]

    def add(self, block: Block) -> None:
        count = self._count + len(block)
        if count > len(self._room):
            room = np.empty((max(count, 2 * len(self._room)), *block.shape[1:]), block.dtype)
            room[: self._count] = self.rows
            self._room = room
        self._room[self._count : count] = block
        self._count = count


class AbstractSamples(abc.ABC):
    """One layer's space of vectors."""

    dtype: ClassVar[str]
    size: int
    weight: float  # of one sample in a mean

    def inner(
        self, a: Float[np.ndarray, "k s"], b: Float[np.ndarray, "l s"]
    ) -> Float[np.ndarray, "k l"]:
        """Averages over neurons of all products of a row of `a` and one of `b`."""
        return (a @ b.T) * self.weight

    @property
    @abc.abstractmethod
    def room(self) -> int | float:
        """How many more independent directions the samples can stand for."""

    @abc.abstractmethod
    def fresh(self, count: int) -> Block:
        """Standard Gaussians, independent of all fields that this layer has seen."""

    @abc.abstractmethod
    def stack(self, rows: Block | None = None) -> Stack:
        """A stack that what is fresh stays orthogonal to, as it grows."""


@final
class Drawn(AbstractSamples):
    """Random samples.

    What is independent in the limit is made orthogonal in the sample: no average of two Gaussian
    fields carries noise then, and a linear network would be solved exactly. Single precision: its
    rounding is far below the noise of any number of samples that fits.
    """

    dtype: ClassVar[str] = "float32"

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.weight = size, 1.0 / size
        self._rng = rng
        self._seen: list[Stack] = []

    @property
    def room(self) -> int:
        # past half of all directions, what is left of them is no longer like a Gaussian sample
        return max(self.size // 2 - sum(len(stack.rows) for stack in self._seen), 0)

    def fresh(self, count: int) -> Block:
        drawn = self._rng.standard_normal((count, self.size), np.float32)
        for _ in range(2):  # the stacks are not orthogonal to each other
            for stack in self._seen:
                drawn -= self.inner(drawn, stack.rows) @ stack.rows
        lower = np.linalg.cholesky(self.inner(drawn, drawn))
        return scipy.linalg.solve_triangular(lower, drawn, lower=True)

    def stack(self, rows: Block | None = None) -> Stack:
        found = Stack(self.size, self.dtype)
        if rows is not None:
            found.add(rows)
        self._seen.append(found)
        return found


@final
class Coordinates(AbstractSamples):
    """Coordinates in the independent Gaussians themselves: exact for linear networks."""

    dtype: ClassVar[str] = "float64"

    def __init__(self, size: int):
        self.size, self.weight = size, 1.0
        self._used = 0

    @property
    def room(self) -> float:
        return math.inf

    def fresh(self, count: int) -> Block:
        if self._used + count > self.size:
            raise Full
        found = np.eye(count, self.size, self._used)
        self._used += count
        return found

    def stack(self, rows: Block | None = None) -> Stack:
        found = Stack(self.size, self.dtype)
        if rows is not None:
            found.add(rows)
        return found
