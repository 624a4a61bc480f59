"""A way to compute a tangent kernel: what is held of a block of rows, and how two blocks meet."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

from widthwise.finite.empirical.rowwise import Rowwise

Outputs = Literal["mean", "each", "all"]
EXACT = jax.lax.Precision.HIGHEST  # accelerators round the factors of products otherwise


@dataclasses.dataclass(frozen=True)
class AbstractWay(abc.ABC):
    """One of the ways.

    Args:
        function: whose kernel it is.
        outputs: which pairs of outputs, see `empirical_kernel`.
    """

    function: Rowwise
    outputs: Outputs

    @abc.abstractmethod
    def features(self, weights: list, rest: list, x) -> Any:
        """What is held of a block of rows."""

    @abc.abstractmethod
    def tile(self, weights: list, rest: list, rates: list, left, right) -> Any:
        """The kernel between two blocks: (n, m), (n, m, k) or (n, m, k, k)."""


class Programs(NamedTuple):
    """A way's two functions, compiled when first called."""

    features: Callable
    tile: Callable


def remembered(size: int) -> Callable:
    """Keeps a function's last results, for arguments that can be looked up. Bounded, for programs
    keep their function alive, and with it the arrays it closes over."""

    def decorated(function: Callable) -> Callable:
        kept = functools.lru_cache(maxsize=size)(function)

        @functools.wraps(function)
        def called(*arguments):
            try:
                hash(arguments)
            except TypeError:
                return function(*arguments)
            return kept(*arguments)

        return called

    return decorated


@remembered(64)
def compiled(way: AbstractWay) -> Programs:
    """The programs of a way, kept for the next call."""
    return Programs(jax.jit(way.features), jax.jit(way.tile))
