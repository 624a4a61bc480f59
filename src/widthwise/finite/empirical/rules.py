"""Rules of the steps that read a weight: its Jacobian as inputs times cotangents.

Whatever the step, the Jacobian of outputs in a weight is, up to an order of the weight's entries,

    J[k, (b, i, o)] = sum over p of inputs[b, p, i] cotangents[k, b, p, o],

with p the positions at which the weight is read, i and o its two sides and b what both share
(groups of features). The cotangents are those of the step's own result, laid out anew.
"""

import abc
import dataclasses
import math
from typing import Any, NamedTuple

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


@dataclasses.dataclass(frozen=True)
class AbstractRule(abc.ABC):
    """How one step reads one weight.

    Args:
        layout: of the step's result.
        near: entries of the weight's near side.
        operand: the number of the step's other value, where inputs are made of it.
    """

    layout: Layout
    near: int
    operand: int | None

    @abc.abstractmethod
    def inputs(self, operand) -> Any:
        """(shared, positions, near)."""


@dataclasses.dataclass(frozen=True)
class DotRule(AbstractRule):
    """A product of arrays, the weight on either side.

    Args:
        order: axes of the other side: shared, free, contracted.
    """

    order: tuple[int, ...]

    @staticmethod
    def of(step: Step, side: int) -> "DotRule":
        """With the weight on this side of the step."""
        contracted, shared = step.params["dimension_numbers"]
        weight, other = (step.equation.invars[s].aval.shape for s in (side, 1 - side))
        own_contracted, own_shared = contracted[1 - side], shared[1 - side]
        free = _rest(other, (*own_contracted, *own_shared))
        n_shared, shape = len(own_shared), step.equation.outvars[0].aval.shape
        n_far = len(weight) - n_shared - len(contracted[side])
        # of a product's result: shared axes, those of the left side, those of the right
        split = n_shared + (n_far if side == 0 else len(free))
        first, second = tuple(range(n_shared, split)), tuple(range(split, len(shape)))
        far, positions = (first, second) if side == 0 else (second, first)
        layout = Layout.of(shape, tuple(range(n_shared)), positions, far)
        near = math.prod(other[axis] for axis in own_contracted)
        order = (*own_shared, *free, *own_contracted)
        return DotRule(layout, near, step.reads[1 - side], order)

    def inputs(self, operand):
        return operand.transpose(self.order).reshape(*self.layout.sizes[:2], self.near)


def _rest(shape, taken) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(shape)) if axis not in taken)


@dataclasses.dataclass(frozen=True)
class ConvRule(AbstractRule):
    """A convolution's filter; its inputs are the patches it looks at.

    Args:
        step: the convolution.
        order: axes of the patches, (batch, *space), as the layout has its positions.
    """

    step: Step
    order: tuple[int, ...]

    @staticmethod
    def of(step: Step) -> "ConvRule":
        """With the weight on the right, as the filter."""
        numbers, groups = step.params["dimension_numbers"], step.params["feature_group_count"]
        kernel, shape = step.equation.invars[1].aval.shape, step.equation.outvars[0].aval.shape
        batch, feature, *space = numbers.out_spec
        # groups of features are split off, in front of the axis they share with the far side
        split = (*shape[:feature], groups, shape[feature] // groups, *shape[feature + 1 :])
        positions = [axis + (axis > feature) for axis in (batch, *space)]
        layout = Layout.of(split, (feature,), tuple(positions), (feature + 1,))
        near = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        order = tuple(map(positions.index, sorted(positions)))
        return ConvRule(layout, near, step.reads[0], step, order)

    def inputs(self, operand):
        params, kernel = self.step.params, self.step.equation.invars[1].aval.shape
        numbers = params["dimension_numbers"]
        plain = tuple(range(operand.ndim))
        patches = jax.lax.conv_general_dilated_patches(
            operand.transpose(numbers.lhs_spec),
            [kernel[axis] for axis in numbers.rhs_spec[2:]],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            jax.lax.ConvDimensionNumbers(plain, plain, plain),
            precision=EXACT,
        )
        patches = jnp.moveaxis(patches, 1, -1)  # (batch, *space, features and taps)
        shared, positions, _ = self.layout.sizes
        patches = patches.transpose(*self.order, plain[-1])
        return jnp.moveaxis(patches.reshape(positions, shared, self.near), 1, 0)


@dataclasses.dataclass(frozen=True)
class AddRule(AbstractRule):
    """A bias; it is read as if its input were one."""

    @staticmethod
    def of(step: Step, spread: tuple[int, ...]) -> "AddRule":
        """With the weight spread over these axes of the result."""
        shape = step.equation.outvars[0].aval.shape
        return AddRule(Layout.of(shape, (), spread, _rest(shape, spread)), 1, None)

    def inputs(self, operand):
        return jnp.ones((*self.layout.sizes[:2], 1))
