"""What flows between layers, as far as composition must know it: positions, sizes, Gaussianity."""

import dataclasses
import enum
import math

import equinox as eqx


class Size(eqx.Module):
    """A number of features: `times` the width n, or `fixed`.

    >>> Size(times=2).at(64), Size(fixed=10).at(64)
    (128, 10)
    """

    times: int = 0
    fixed: int = 0

    @property
    def grows(self) -> bool:
        return self.times > 0

    def at(self, width: int) -> int:
        return self.times * width if self.grows else self.fixed

    def by(self, factor: int) -> "Size":
        """So many times as many."""
        return Size(factor * self.times, factor * self.fixed)

    def __str__(self) -> str:
        if self.grows:
            return "n" if self.times == 1 else f"{self.times}n"
        return "as many as there are outputs" if self == OUTPUTS else str(self.fixed)


OUTPUTS = Size(fixed=-1)  # as many as the data has: resolved when a network meets data


class Pairs(enum.IntEnum):
    """Which pairs of positions of two inputs a network reads."""

    SAME = 0  # each position with the same position of the other
    ALL = 1


class Signal(eqx.Module):
    """Feature vectors, one or one at every position; None where a network that is not yet whole
    cannot know.

    `shape`: the grid of positions, () for a single vector; an extent may be None.
    `gaussian`: features become independent Gaussians at infinite width, which is what a
    nonlinearity needs in front of it.
    `linked`: whether the positions are the nodes of a graph.
    """

    size: Size | None = None
    gaussian: bool | None = None
    shape: tuple[int | None, ...] | None = None
    linked: bool | None = None

    def moved(self, shape: tuple[int | None, ...] | None) -> "Signal":
        """The same features on another grid."""
        return dataclasses.replace(self, shape=shape, linked=False)

    def remade(self, size: Size | None, gaussian: bool | None) -> "Signal":
        """Other features at the same positions."""
        return dataclasses.replace(self, size=size, gaussian=gaussian)

    @property
    def positions(self) -> int | None:
        """How many there are."""
        if self.shape is None or None in self.shape:
            return None
        return math.prod(self.shape)  # type: ignore[arg-type]

    def __str__(self) -> str:
        features = "features" if self.size is None else f"{self.size} features"
        if not self.shape:
            return features
        return f"{' x '.join('?' if s is None else str(s) for s in self.shape)} x {features}"
