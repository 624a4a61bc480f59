"""Which way is cheapest, by counted operations, among those that memory has room for."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax

from widthwise.finite.empirical.contraction import Contraction, Products
from widthwise.finite.empirical.count import bytes_of_arrays, cost_of
from widthwise.finite.empirical.rowwise import Rowwise
from widthwise.finite.empirical.structured import Structured
from widthwise.finite.empirical.tiles import Tiling
from widthwise.finite.empirical.way import AbstractWay, Outputs, compiled, remembered
from widthwise.memory import free_memory

Way = Literal["cheapest", "contraction", "products", "structured"]
NAMES: tuple[Way, ...] = ("contraction", "products", "structured")


@dataclasses.dataclass(frozen=True)
class Question:
    """A kernel to compute, in shapes alone."""

    function: Rowwise
    weights: Any  # shapes, as are the rest and the row
    rest: Any
    row: Any
    outputs: Outputs
    n_outputs: int
    uneven: frozenset[int]
    tiling: Tiling

    @property
    def fixed(self) -> tuple[list, list]:
        """Shapes of the weights and of the rest."""
        return list(self.weights), list(self.rest)

    @property
    def block(self) -> jax.ShapeDtypeStruct:
        """Shape of a block of rows."""
        return self.row.update(shape=(self.tiling.size1, *self.row.shape))

    @property
    def rates(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes of the step sizes."""
        each = enumerate(self.weights)
        return [w if index in self.uneven else w.update(shape=()) for index, w in each]

    def way(self, name: Way) -> AbstractWay:
        """A way by its name."""
        if name == "contraction":
            return Contraction(self.function, self.outputs)
        if name == "products":
            return Products(self.function, self.outputs)
        pairs = self.tiling.tiles * self.tiling.size1 * self.tiling.size2
        rows = self.tiling.evaluated(keep=True)
        return Structured(self.function, self.outputs, rows, pairs, self.uneven)


@dataclasses.dataclass(frozen=True)
class Count:
    """What one way costs: operations, and bytes held at once."""

    way: Way
    flops: int
    bytes: int


class Held(NamedTuple):
    """What a way holds of the rows: all features, each computed once, if they take no more than
    two blocks' Jacobians; else those of two blocks."""

    features: Any  # shapes, of a block
    keep: bool
    bytes: int


@remembered(256)
def held(question: Question, name: Way) -> Held:
    """Read off the shapes."""
    tiling, programs = question.tiling, compiled(question.way(name))
    features = jax.eval_shape(programs.features, *question.fixed, question.block)
    row, two_blocks = bytes_of_arrays(features) // tiling.size1, tiling.size1 + tiling.size2
    jacobian_row = question.n_outputs * bytes_of_arrays(question.weights)
    rows = tiling.evaluated(keep=True)
    keep = row * rows <= two_blocks * jacobian_row
    return Held(features, keep, row * (rows if keep else two_blocks))


@remembered(256)
def count(question: Question, name: Way) -> Count:
    """Counted on the programs that would run, once for each question."""
    tiling, programs = question.tiling, compiled(question.way(name))
    left, keep, size = held(question, name)
    right = jax.tree.map(lambda x: x.update(shape=(tiling.size2, *x.shape[1:])), left)
    block = cost_of(programs.features, *question.fixed, question.block)
    tile = cost_of(programs.tile, *question.fixed, question.rates, left, right)
    flops = block.flops * tiling.evaluated(keep) // tiling.size1 + tile.flops * tiling.tiles
    return Count(name, flops, size + max(block.bytes, tile.bytes))


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What each way would cost, and which is chosen.

    Args:
        counts: one for each way.
        chosen: its name.
        reason: a sentence.
    """

    counts: tuple[Count, ...]
    chosen: Way
    reason: str

    def __str__(self) -> str:
        lines = [f"{'way':<12}{'GFLOP':>12}{'MB':>12}"]
        for one in self.counts:
            lines.append(f"{one.way:<12}{one.flops / 1e9:>12.4g}{one.bytes / 1e6:>12.4g}")
        return "\n".join([*lines, self.reason])


def explain(question: Question) -> Explanation:
    """The way with the fewest operations among those that fit in free memory; if none fits, the
    one that holds least."""
    counts = tuple(count(question, name) for name in NAMES)
    free = free_memory()
    fitting = [one for one in counts if free is None or one.bytes <= free]
    best = min(fitting or counts, key=lambda x: x.flops if fitting else x.bytes)
    if not fitting:
        reason = f"'{best.way}' holds least, and no way fits in memory: give a smaller block."
    elif len(fitting) < len(counts):
        out = ", ".join(repr(one.way) for one in counts if one not in fitting)
        reason = f"'{best.way}' is chosen: of what fits in memory (not {out}) it costs least."
    else:
        reason = f"'{best.way}' is chosen: it takes the fewest floating-point operations."
    return Explanation(counts, best.way, reason)
