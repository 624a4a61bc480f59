"""Rules of the steps that read a weight: its Jacobian as inputs times cotangents.

Whatever the step, the Jacobian of outputs in a weight is, up to an order of the weight's entries,

    J[k, (b, i, o)] = sum over p of inputs[b, p, i] cotangents[k, b, p, o],

with p the positions at which the weight is read, i and o its two sides and b what both share
(groups of features). The cotangents are those of the step's own result, laid out anew.
"""

import abc
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from widthwise.finite.empirical.trace import Step
from widthwise.finite.empirical.way import EXACT


class Layout(NamedTuple):
    """Which axes of a step's result are shared, positions, and the weight's far side."""

    shape: tuple[int, ...]
    shared: tuple[int, ...]
    positions: tuple[int, ...]
    far: tuple[int, ...]

    @staticmethod
    def of(shape, shared, positions, far) -> "Layout":
        """Axes of one entry count as positions, so that equal layouts compare equal."""
        ones = {axis for axis, size in enumerate(shape) if size == 1}
        shared, far = (tuple(a for a in axes if a not in ones) for axes in (shared, far))
        return Layout(tuple(shape), shared, tuple(sorted({*positions} | ones)), far)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Shared, positions, far side."""
        axes = (self.shared, self.positions, self.far)
        shared, positions, far = (math.prod(self.shape[a] for a in own) for own in axes)
        return shared, positions, far

    def arrange(self, cotangent):
        """(k, *result) as (k, shared, positions, far)."""
        split = cotangent.reshape(-1, *self.shape)
        order = (*self.shared, *self.positions, *self.far)
        return split.transpose(0, *(a + 1 for a in order)).reshape(-1, *self.sizes)


class AbstractRule(abc.ABC):
    """How one step reads one weight."""

    layout: Layout
    near: int  # entries of the weight's near side
    operand: int | None  # the number of the step's other value, where inputs are made of it

    @abc.abstractmethod
    def inputs(self, operand):
        """(shared, positions, near)."""


class DotRule(AbstractRule):
    """A product of arrays, the weight on either side."""

    def __init__(self, step: Step, side: int):
        (contracted, shared) = step.params["dimension_numbers"]
        weight, other = (step.equation.invars[s].aval.shape for s in (side, 1 - side))
        self.contracted, self.shared = contracted[1 - side], shared[1 - side]
        self.free = _rest(other, self.contracted, self.shared)
        n_shared, n_free = len(self.shared), len(self.free)
        n_far = len(weight) - n_shared - len(contracted[side])
        sizes = [n_shared, *((n_far, n_free) if side == 0 else (n_free, n_far))]
        starts = (0, sizes[0], sizes[0] + sizes[1])
        axes = [tuple(range(a, a + size)) for a, size in zip(starts, sizes, strict=True)]
        far, positions = (axes[1], axes[2]) if side == 0 else (axes[2], axes[1])
        shape = step.equation.outvars[0].aval.shape
        self.layout = Layout.of(shape, axes[0], positions, far)
        self.near = math.prod(other[axis] for axis in self.contracted)
        self.operand = step.reads[1 - side]

    def inputs(self, operand):
        ordered = operand.transpose(*self.shared, *self.free, *self.contracted)
        return ordered.reshape(*self.layout.sizes[:2], self.near)


def _rest(shape, *taken) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(shape)) if not any(axis in own for own in taken))


class ConvRule(AbstractRule):
    """A convolution's filter; its inputs are the patches it looks at."""

    def __init__(self, step: Step):
        self.params = step.params
        numbers, groups = step.params["dimension_numbers"], step.params["feature_group_count"]
        kernel = step.equation.invars[1].aval.shape
        batch, feature, *space = numbers.out_spec
        shape = step.equation.outvars[0].aval.shape
        self.taps = tuple(kernel[axis] for axis in numbers.rhs_spec[2:])
        # groups of features are split off, in front of the axis they share with the far side
        split = (*shape[:feature], groups, shape[feature] // groups, *shape[feature + 1 :])
        place = {axis: axis + (axis > feature) for axis in range(len(shape))}
        positions = tuple(place[axis] for axis in (batch, *space))
        self.layout = Layout.of(split, (feature,), positions, (feature + 1,))
        # in the order in which `arrange` lays the positions out
        self.order = [axis for axis in self.layout.positions if axis in positions]
        self.order = [positions.index(axis) for axis in self.order]
        self.near = math.prod(self.taps) * kernel[numbers.rhs_spec[1]]
        self.operand = step.reads[0]

    def inputs(self, operand):
        p = self.params
        n_space = len(self.taps)
        plain = tuple(range(n_space + 2))
        patches = jax.lax.conv_general_dilated_patches(
            operand.transpose(p["dimension_numbers"].lhs_spec),
            self.taps,
            p["window_strides"],
            p["padding"],
            p["lhs_dilation"],
            p["rhs_dilation"],
            jax.lax.ConvDimensionNumbers(plain, plain, plain),
            precision=EXACT,
        )
        patches = jnp.moveaxis(patches, 1, -1)  # (batch, *space, features * taps)
        patches = patches.transpose(*self.order, n_space + 1)
        shared, positions, _ = self.layout.sizes
        return jnp.moveaxis(patches.reshape(positions, shared, self.near), 1, 0)


class AddRule(AbstractRule):
    """A bias; it is read as if its input were one."""

    operand, near = None, 1

    def __init__(self, step: Step, spread: tuple[int, ...]):
        shape = step.equation.outvars[0].aval.shape
        self.layout = Layout.of(shape, (), spread, _rest(shape, spread))

    def inputs(self, operand):
        return jnp.ones((*self.layout.sizes[:2], 1))
