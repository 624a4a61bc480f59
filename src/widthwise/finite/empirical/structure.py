"""Where parameters enter a function as y = W x, and how to read W, x and y there.

A parameter may be reshaped, transposed, broadcast and multiplied by numbers on its way; then it
meets an operand in a product, a convolution or (as a bias) a sum. Each such place is a `Use`. The
derivative in the parameter is the sum over its uses of the cotangent at y times x, so uses are all
that a tangent kernel needs. A parameter that also goes anywhere else has no structure: whoever
reads it finds the reason instead of the uses.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from widthwise.finite.empirical.program import Program, Step

RELAID = {"reshape", "squeeze", "expand_dims", "transpose", "rev", "copy", "copy_p"}
SUMS = {"add", "add_any", "sub"}

# A number that multiplies: (variable, power), or (None, 1) for the sign -1.
Factor = tuple[int | None, int]
Axes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Entry(NamedTuple):
    """A variable that is a parameter laid out anew.

    moves: what was done to its axes, step by step. spread: once broadcast, the axes that are the
    parameter's own.
    """

    parameter: int
    moves: tuple = ()
    factors: tuple[Factor, ...] = ()
    spread: tuple[int, ...] | None = None


class Use(NamedTuple):
    """y[b, p, o] = sum over d of x[b, p, d] W[b, d, o], times factors; a bias has x = 1.

    site: the variable y. cotangent: its axes that are b, p, o. operand: the variable x, None for a
    bias; axes: its axes that are b, p, d. convolution: settings with which patches of x are taken.
    kind: uses of one parameter and one kind read W in the same way, so that they may be crossed.
    """

    site: int
    cotangent: Axes
    operand: int | None
    axes: Axes
    factors: tuple[Factor, ...]
    kind: tuple
    convolution: Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple:
        """Uses of one key share their cotangents."""
        return self.site, self.cotangent


def uses_of(program: Program, count: int) -> list[list[Use] | str]:
    """For each of the first `count` arguments its uses, or why it has no structure."""
    reader = _Reader(program)
    entries = {program.arguments[i]: Entry(i) for i in range(count)}
    uses: list[list[Use]] = [[] for _ in range(count)]
    reasons: dict[int, str] = {}
    for step in program.steps:
        own = [entries[number] for number in step.inputs if number in entries]
        if not own:
            continue
        found = reader.read(step, entries) if len(own) == 1 else None
        if isinstance(found, Entry):
            entries[step.outputs[0]] = found
        elif isinstance(found, Use):
            uses[own[0].parameter].append(found)
        else:
            reasons |= {entry.parameter: f"it enters by {step.name}" for entry in own}
    for number in set(program.results) & set(entries):
        reasons[entries[number].parameter] = "it is an output"
    for parameter, found in enumerate(uses):
        if any(use.kind != found[0].kind for use in found):
            reasons.setdefault(parameter, "it enters in several ways")
    return [reasons.get(parameter, found) for parameter, found in enumerate(uses)]


class _Reader:
    """Reads one equation that a parameter enters: a new layout of it, a use of it, or neither."""

    def __init__(self, program: Program):
        self.kinds = program.kinds
        self.numbers = _numbers(program)
        self.readers: dict[int, list[Step]] = {}
        for step in program.steps:
            for number in step.inputs:
                self.readers.setdefault(number, []).append(step)
        self.results = set(program.results)

    def read(self, step: Step, entries: dict[int, Entry]) -> Entry | Use | None:
        at = next(i for i, number in enumerate(step.inputs) if number in entries)
        entry = entries[step.inputs[at]]
        factors = self._factors(step, at)
        if factors is not None:
            return entry._replace(factors=entry.factors + factors)
        if step.name == "broadcast_in_dim" and len(step.inputs) == 1:
            return self._broadcast(step, entry)
        if step.name in SUMS:
            return self._bias(step, entry, at)
        if entry.spread is not None:
            return None
        if step.name in RELAID or self._keeps_reals(step):
            return entry._replace(moves=(*entry.moves, (step.name, step.settings)))
        if step.name == "dot_general":
            return self._product(step, entry, at)
        if step.name == "conv_general_dilated" and at == 1:
            return self._convolution(step, entry)
        return None

    def _factors(self, step: Step, at: int) -> tuple[Factor, ...] | None:
        """The number by which a step multiplies its input `at`; None for other steps."""
        if step.name == "neg":
            return ((None, 1),)
        if step.name == "mul" or (step.name == "div" and at == 0):
            number = self.numbers.get(step.inputs[1 - at])
            if number is not None and self._same(step.inputs[at], step.outputs[0]):
                return ((number, 1 if step.name == "mul" else -1),)
        return None

    def _same(self, one: int, other: int) -> bool:
        return self.kinds[one] == self.kinds[other]

    def _keeps_reals(self, step: Step) -> bool:
        kinds = (self.kinds[step.inputs[0]], self.kinds[step.outputs[0]])
        return step.name == "convert_element_type" and all(x.dtype.kind == "f" for x in kinds)

    def _broadcast(self, step: Step, entry: Entry) -> Entry | None:
        before, after = (self.kinds[x].shape for x in (step.inputs[0], step.outputs[0]))
        if entry.spread is None and math.prod(before) == math.prod(after):
            return entry._replace(moves=(*entry.moves, (step.name, step.settings)))
        into = tuple(map(int, step.settings["broadcast_dimensions"]))
        own = range(len(before)) if entry.spread is None else entry.spread
        kept = tuple(into[axis] for axis in own if before[axis] == after[into[axis]])
        lost = [axis for axis in own if 1 < before[axis] != after[into[axis]]]
        return None if lost else entry._replace(spread=kept)

    def _bias(self, step: Step, entry: Entry, at: int) -> Use | None:
        y = step.outputs[0]
        if not self._same(step.inputs[at], y):
            return None
        axes = range(len(self.kinds[y].shape))
        own = tuple(axes) if entry.spread is None else entry.spread
        shared = tuple(axis for axis in axes if axis not in own)
        sign: tuple[Factor, ...] = ((None, 1),) if step.name == "sub" and at == 1 else ()
        return self._use(y, ((), shared, own), None, ((), (), ()), entry, ("bias",), sign)

    def _product(self, step: Step, entry: Entry, at: int) -> Use:
        contracted, batched = step.settings["dimension_numbers"]
        x, y = step.inputs[1 - at], step.outputs[0]
        sums = sorted(zip(contracted[at], contracted[1 - at], strict=True))
        batches = sorted(zip(batched[at], batched[1 - at], range(len(batched[at])), strict=True))
        used = {*contracted[1 - at], *batched[1 - at]}
        free = tuple(axis for axis in range(len(self.kinds[x].shape)) if axis not in used)
        rank, start = len(self.kinds[y].shape), len(batches)
        left = range(start, start + len(free)) if at == 1 else range(rank - len(free), rank)
        out = tuple(axis for axis in range(start, rank) if axis not in left)
        cotangent = tuple(axis for _, _, axis in batches), tuple(left), out
        axes = tuple(axis for _, axis, _ in batches), free, tuple(axis for _, axis in sums)
        own = tuple(axis for axis, _ in sums), tuple(axis for axis, _, _ in batches)
        return self._use(y, cotangent, x, axes, entry, ("product", *own))

    def _convolution(self, step: Step, entry: Entry) -> Use | None:
        settings = step.settings
        if settings["feature_group_count"] != 1 or settings["batch_group_count"] != 1:
            return None
        numbers = settings["dimension_numbers"]
        rows, channels, *places = numbers.out_spec
        shape = self.kinds[step.inputs[1]].shape
        axes = (), (rows, *places), (channels,)
        found = self._use(
            step.outputs[0], axes, step.inputs[0], axes, entry, ("convolution", numbers.rhs_spec)
        )
        window = tuple(shape[axis] for axis in numbers.rhs_spec[2:])
        return found._replace(convolution={**settings, "filter_shape": window})

    def _use(
        self, y: int, cotangent: Axes, x: int | None, axes: Axes, entry: Entry, kind: tuple,
        sign: tuple[Factor, ...] = (),
    ) -> Use:  # fmt: skip
        site, factors = self._follow(y)
        factors = entry.factors + sign + factors
        return Use(site, cotangent, x, axes, factors, (*kind, entry.moves))

    def _follow(self, y: int) -> tuple[int, tuple[Factor, ...]]:
        """The last variable whose cotangent is that of y times factors: past sums and factors."""
        factors: tuple[Factor, ...] = ()
        while y not in self.results and len(self.readers.get(y, ())) == 1:
            step = self.readers[y][0]
            at = step.inputs.index(y)
            scale = self._factors(step, at)
            passes = step.name in SUMS and not (step.name == "sub" and at == 1)
            if step.inputs.count(y) > 1 or not (scale or passes):
                break
            if not self._same(y, step.outputs[0]):
                break
            y, factors = step.outputs[0], factors + (scale or ())
        return y, factors


def _numbers(program: Program) -> dict[int, int]:
    """Variables that hold one number, many times or once: which variable is that number."""
    found = {x: x for x, kind in program.kinds.items() if kind.shape == ()}
    for step in program.steps:
        if step.name == "broadcast_in_dim" and step.inputs[0] in found:
            found[step.outputs[0]] = found[step.inputs[0]]
    return found
