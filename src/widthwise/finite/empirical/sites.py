"""Where a program reads its weights, and which of these places have a rule."""

import math
from collections import Counter
from typing import NamedTuple

import jax.numpy as jnp

from widthwise.finite.empirical.rules import AbstractRule, AddRule, ConvRule, DotRule
from widthwise.finite.empirical.trace import Program, Step

# On a weight's way to its use: its entries are kept, up to their order and one factor.
KEEP = {"reshape", "transpose", "squeeze", "expand_dims", "copy", "neg", "rev"}
ADD = {"add", "sub", "add_any"}


class Path(NamedTuple):
    """A value that is one weight, spread over axes and scaled."""

    weight: int
    spread: tuple[int, ...] = ()
    scales: tuple[tuple[int, int], ...] = ()  # numbers of scalars and the powers, 1 or -1


class Site(NamedTuple):
    """The one place where a weight is read.

    The cotangents are those of the value `tap`, which stands behind the step that reads where only
    additions and scalars lie between.
    """

    weight: int
    rule: AbstractRule
    tap: int
    scales: tuple[tuple[int, int], ...]

    def inputs(self, values):
        """(shared, positions, near), from all values of the run."""
        operand = self.rule.operand
        found = self.rule.inputs(None if operand is None else values[operand])
        for number, power in self.scales:
            found = found * values[number].reshape(()) ** power
        return found.astype(values[self.tap].dtype)


class Found(NamedTuple):
    """Weights that have a rule, by their site, and those that are read in any other way."""

    sites: dict[int, Site]
    loose: set[int]


def find_sites(program: Program, n_weights: int) -> Found:
    """Values 0, ..., n_weights - 1 are the weights.

    >>> program = Program.trace(lambda w, b, x: jnp.sin(b) + x @ w, jnp.ones((3, 2)), 1.0,
    ...                         jnp.ones(3))
    >>> sites, loose = find_sites(program, 2)
    >>> sorted(sites), loose
    ([0], {1})
    """
    paths = {weight: Path(weight) for weight in range(n_weights)}
    readers = Counter(number for step in program.steps for number in set(step.reads))
    readers[program.result] += 1
    only = {n: s for s in program.steps for n in s.reads if readers[n] == 1}
    sites: list[Site] = []
    loose: list[int] = []
    for step in program.steps:
        for side, number in enumerate(step.reads):
            if number not in paths:
                continue
            path, further = paths[number], None
            others = [paths[n].weight for n in step.reads if n in paths]
            if others.count(path.weight) == 1:
                further = _further(program, step, side, path)
            rule = _rule(step, side, path) if others.count(path.weight) == 1 else None
            if further is not None and step.writes[0] not in paths:
                paths[step.writes[0]] = further
            elif rule is not None:
                tap, scales = _tap(program, only, step.writes[0])
                sites.append(Site(path.weight, rule, tap, path.scales + scales))
            else:
                loose.append(path.weight)
    if program.result in paths:
        loose.append(paths[program.result].weight)
    reads = Counter(site.weight for site in sites)
    several = {weight for weight, times in reads.items() if times > 1}
    outside = {*loose} | several
    return Found({s.weight: s for s in sites if s.weight not in outside}, outside)


def _further(program: Program, step: Step, side: int, path: Path) -> Path | None:
    """The step's result, where it is still the one weight."""
    before, after = (program.avals[n] for n in (step.reads[side], step.writes[0]))
    same = math.prod(before.shape) == math.prod(after.shape)
    if step.name == "broadcast_in_dim" and len(step.reads) == 1:
        kept = dict(zip(step.params["broadcast_dimensions"], before.shape, strict=True))
        wide = [axis for axis, size in enumerate(after.shape) if kept.get(axis, 1) != size]
        moved = [step.params["broadcast_dimensions"][axis] for axis in path.spread]
        return path._replace(spread=tuple(sorted({*wide, *moved})))
    if step.name == "convert_element_type":
        return path if jnp.issubdtype(after.dtype, jnp.inexact) else None
    if step.name in KEEP and same:
        return None if path.spread and step.name not in ("neg", "copy") else path
    scale = _scale(program, step, side)
    return None if scale is None else path._replace(scales=(*path.scales, scale))


def _scale(program: Program, step: Step, side: int) -> tuple[int, int] | None:
    """The scalar, and its power, by which the step multiplies one of its values."""
    if step.name not in ("mul", "div") or (step.name == "div" and side == 1):
        return None
    other, own, result = step.reads[1 - side], step.reads[side], step.writes[0]
    alone = math.prod(program.avals[other].shape) == 1
    if other == own or not alone or program.avals[own].shape != program.avals[result].shape:
        return None
    return other, 1 if step.name == "mul" else -1


def _rule(step: Step, side: int, path: Path) -> AbstractRule | None:
    if step.name in ADD:
        before, after = step.equation.invars[side].aval.shape, step.equation.outvars[0].aval.shape
        sizes = before or (1,) * len(after)  # a scalar may be added as it is
        stretched = [axis for axis, size in enumerate(after) if sizes[axis] != size]
        return AddRule.of(step, tuple(sorted({*path.spread, *stretched})))
    if path.spread:
        return None
    if step.name == "dot_general":
        return DotRule.of(step, side)
    if step.name == "conv_general_dilated" and side == 1 and step.params["batch_group_count"] == 1:
        return ConvRule.of(step)
    return None


def _tap(program: Program, only: dict[int, Step], number: int):
    """The last value that this one reaches through additions and scalars alone: weights that meet
    on the way, a layer's matrix and bias, then share their cotangents."""
    scales = ()
    while number in only and len(only[number].writes) == 1:
        step = only[number]
        result, side = step.writes[0], step.reads.index(number)
        if step.reads.count(number) > 1 or program.avals[result] != program.avals[number]:
            break
        scale = _scale(program, step, side)
        if step.name in ADD:
            number = result
        elif scale is not None:
            number, scales = result, (*scales, scale)
        else:
            break
    return number, scales
