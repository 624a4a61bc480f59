"""Filters along one axis of a grid of positions: which inputs each output reads."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise import settings

Padding = Literal["SAME", "VALID", "CIRCULAR"]
PADDINGS = ("SAME", "VALID", "CIRCULAR")


class Taps(NamedTuple):
    """One axis of a filter: output i reads inputs stride * i + k - low for k < taps, where the
    inputs stand `dilation` apart, with zeros between them, and outside the grid are zeros, or the
    grid again (`circular`)."""

    taps: int
    stride: int
    low: int
    high: int
    dilation: int = 1
    circular: bool = False

    @classmethod
    def of(cls, extent: int, count: int, stride: int, padding: Padding) -> "Taps":
        """
        >>> Taps.of(8, 3, 2, "SAME").outputs(8)
        4
        """
        if padding == "VALID":
            return cls(count, stride, 0, 0)
        total = max((-(-extent // stride) - 1) * stride + count - extent, 0)
        return cls(count, stride, total // 2, total - total // 2, circular=padding == "CIRCULAR")

    @classmethod
    def transposed(cls, count: int, stride: int, padding: Padding) -> "Taps":
        """Of the transposed filter: stride * extent outputs for SAME, all that are reached for
        VALID."""
        if padding == "VALID":
            total = count + stride - 2 + max(count - stride, 0)
            low = count - 1
        else:
            total = count + stride - 2
            low = count - 1 if stride > count - 1 else math.ceil(total / 2)
        return cls(count, 1, low, total - low, stride, padding == "CIRCULAR")

    def outputs(self, extent: int) -> int:
        """How many there are; 0 or fewer where the filter does not fit."""
        reach = (extent - 1) * self.dilation + 1 + self.low + self.high
        return (reach - self.taps) // self.stride + 1

    def reads(self, extent: int) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, taps) of the input that each output reads by each tap, and whether it lies
        inside the grid; for inputs that do not stand apart.

        >>> Taps.of(3, 3, 1, "SAME").reads(3)[0].tolist()
        [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
        """
        steps = self.stride * np.arange(self.outputs(extent))
        at = steps[:, None] + np.arange(self.taps) - self.low
        if self.circular:
            return at % extent, np.ones(at.shape, bool)
        return np.clip(at, 0, extent - 1), (at >= 0) & (at < extent)

    def slide(self, x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
        """The sum over k of what output i reads by tap k, along several axes at once: where two
        axes hold the positions of two inputs, both read by the same tap."""
        for axis in axes:
            x = self.padded(x, axis)
        count = (x.shape[axes[0]] - self.taps) // self.stride + 1
        total = None
        for k in range(self.taps):
            part = x
            for axis in axes:
                stop = k + self.stride * (count - 1) + 1
                part = jax.lax.slice_in_dim(part, k, stop, self.stride, axis)
            total = part if total is None else total + part
        assert total is not None
        return total

    def padded(self, x, axis: int):
        """With what stands between and around the inputs."""
        extent, config = x.shape[axis] * self.dilation, [(0, 0, 0)] * x.ndim
        if self.circular:
            config[axis] = (0, self.dilation - 1, self.dilation - 1)
            spread = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
            index = np.arange(-self.low, extent + self.high) % extent
            return jnp.take(spread, index, axis=axis)
        config[axis] = (self.low, self.high, self.dilation - 1)
        return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def along(x, matrices: tuple[np.ndarray | None, ...], first: int = 0):
    """An array multiplied by a matrix (outputs, extent) along each of its axes from the first one;
    None leaves an axis as it is."""
    for axis, matrix in enumerate(matrices, start=first):
        if matrix is not None:
            moved = jnp.tensordot(x, jnp.asarray(matrix, x.dtype), ((axis,), (1,)))
            x = jnp.moveaxis(moved, -1, axis)
    return x


def taking(index: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The matrices that take these positions of a grid."""
    return tuple(np.eye(s)[i] for i, s in zip(index, shape, strict=True))


def placing(
    shape: tuple[int, ...], axis: int, start: int, extent: int
) -> tuple[np.ndarray | None, ...]:
    """The matrices that put a grid on one of another extent along an axis, from there on."""
    matrix = np.eye(extent)[:, start : start + shape[axis]]
    return tuple(matrix if own == axis else None for own in range(len(shape)))


def check_strides(owner: Any, strides: tuple[int, ...] | None, window: tuple[int, ...]) -> None:
    """Refuses strides that are no whole numbers, or not one for each axis of a window."""
    if strides is None:
        return
    settings.extents(owner, "strides")
    if len(strides) != len(window):
        raise ValueError(
            f"strides of {type(owner).__name__} is {strides}, and its window or filter has "
            f"{len(window)} axes: give one for each."
        )


def window_matrix(extent: int, taps: Taps, average: bool, edges: bool) -> np.ndarray:
    """The matrix (outputs, extent) of a pooling along one axis.

    `average` divides by the number of taps, or by those inside the grid (`edges`).
    """
    found = np.zeros((taps.outputs(extent), extent))
    for i in range(len(found)):
        for k in range(taps.taps):
            at = taps.stride * i + k - taps.low
            if taps.circular:
                found[i, at % extent] += 1.0
            elif 0 <= at < extent:
                found[i, at] += 1.0
    if average:
        found /= np.sum(found, axis=1, keepdims=True) if edges else float(taps.taps)
    return found
