"""How kernel matrices come about: by one of several paths, which give the same numbers."""

import abc
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Precision = Literal["float64", "float32", "fast"]
STORED = {"float64": np.float64, "float32": np.float32, "fast": np.float32}
# What entries may be off by, as parts of the geometric mean of their two diagonal entries.
ACCURACY = {"float64": 1e-10, "float32": 3e-7, "fast": 5e-4}

CHECKED = (128, 8)  # rows against columns at which paths of vectors are compared with the rules


class NotApplicable(ValueError):
    """A path that does not apply, and why."""


class Sides(NamedTuple):
    """Rows x1 against rows x2; without x2, x1 against itself."""

    x1: Float[np.ndarray, "n *s d"]
    x2: Float[np.ndarray, "m *s d"] | None

    @property
    def other(self) -> Float[np.ndarray, "m *s d"]:
        return self.x1 if self.x2 is None else self.x2

    @property
    def pairs(self) -> int:
        """Entries to compute: half of a symmetric matrix."""
        return len(self.x1) * len(self.other) // (2 if self.x2 is None else 1)


def few(sides: Sides) -> Sides:
    """Rows of both sides at which a path is compared with the rules, longest and shortest among
    them."""
    rng = np.random.default_rng(0)

    def some(x, count):
        length = np.linalg.norm(x, axis=1)
        return x[[*rng.integers(len(x), size=count - 2), length.argmin(), length.argmax()]]

    return Sides(*(some(x, n) for x, n in zip((sides.x1, sides.other), CHECKED, strict=True)))


class AbstractPath(abc.ABC):
    """Entries of the kernel matrices of two sides.

    Attributes:
        name: of the path.
        names: of the matrices, in the order in which `tile` gives them.
        rows: of a tile, on either side.
        why: what makes the path apply, as `explain` tells it.
    """

    name: ClassVar[str]
    names: tuple[str, ...]
    rows: int
    why: str

    @abc.abstractmethod
    def tile(self, a: slice, b: slice) -> Sequence[Float[np.ndarray, "n m"]]:
        """Rows a of x1 against rows b of the other side: one part of each matrix. Where both are
        the same rows, the parts are symmetric to the last digit. The next call in the same
        thread may overwrite them."""
