"""The plan of the path of images: what a network does between two poolings."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.kernels.path import NotApplicable, Sides
from widthwise.network.begin import read
from widthwise.network.context import Known
from widthwise.network.conv import Conv
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Identity
from widthwise.network.nonlinear.rectified import AbstractKinked
from widthwise.network.pool import (
    AveragePool,
    Flatten,
    GlobalAveragePool,
    GlobalSumPool,
    SumPool,
)
from widthwise.network.reader import AbstractReader
from widthwise.network.taps import Taps

Shape = tuple[int, int]
FILTER, KINK = 0, 1  # the operations


class Grids(NamedTuple):
    """What a side brings to each operation, on the grid that arrives there, by lanes: the variance
    in front of a filter, with zeros around, its mean over the taps of each output; the standard
    deviation at a kink and its reciprocal, 0 where it is 0."""

    front: Float[np.ndarray, "ops h wl"]
    mean: Float[np.ndarray, "ops h wl"]
    root: Float[np.ndarray, "ops h wl"]
    back: Float[np.ndarray, "ops h wl"]


class Operation(NamedTuple):
    """A filter or a kink on a grid.

    numbers, of a filter: what multiplies means over its taps (variance, carry, tangent), the bias's
    tangent, 1, 1/2, 1 / taps, and the bias's variance; of a kink: its parts, what s1 s2 adds to D
    at a cosine of -1, one unused, 1, 1/2.
    """

    kind: int
    sizes: tuple[int, ...]  # taps, and zeros before and behind, along both axes
    numbers: tuple[float, ...]
    shape: Shape  # of the grid that arrives
    around: bool = False  # whether the grid stands again beyond its edges, in place of zeros

    @property
    def left(self) -> Shape:
        """The grid that leaves."""
        if self.kind == KINK:
            return self.shape
        (h, w), (taps_h, taps_w, *around) = self.shape, self.sizes
        return h + around[0] + around[1] - taps_h + 1, w + around[2] + around[3] - taps_w + 1


class Stage(NamedTuple):
    """Operations, and the pooling behind them: pairs of its windows are `scale` times sums. The
    last one has no windows. Of a filter with strides only the first position of each window is
    there: `step` is its strides then, and (1, 1) for poolings."""

    operations: tuple[Operation, ...]
    shape: Shape
    end: Shape
    window: Shape
    scale: float
    reach: Shape  # the largest displacement along each axis that is needed
    step: Shape = (1, 1)

    @property
    def strided(self) -> bool:
        return self.step != (1, 1)

    @property
    def around(self) -> bool:
        """Whether its slices go round, p with p + d modulo the extents: all filters do, or see one
        position alone."""
        return any(op.around for op in self.operations)

    @property
    def pooled(self) -> Shape:
        """The grid of windows; none behind the last stage."""
        if self.window == (0, 0):
            return (0, 0)
        (h, w), (rows, columns), (down, along) = self.end, self.window, self.step
        return (h + down - 1) // rows, (w + along - 1) // columns

    def packed(self, kind: type):
        """Kinds, sizes and numbers of the operations, as compiled code reads them."""
        kinds = np.array([op.kind for op in self.operations])
        sizes = tuple(tuple(op.sizes) for op in self.operations)
        return kinds, np.array(sizes), np.array([op.numbers for op in self.operations], kind)


class Plan(NamedTuple):
    """A network that the path knows: stages, and (variance, carry, tangent, bias's variance and
    tangent) of the layers behind."""

    stages: tuple[Stage, ...]
    last: tuple[tuple[float, ...], ...]


def planned(network: AbstractLayer, own, grid: tuple[int, ...]) -> Plan:
    """The stages of a network; NotApplicable where a layer is none of those that the path knows."""
    rank = len(grid)
    shape: Shape = (1, *grid) if rank == 1 else grid  # type: ignore[assignment]
    layers, stages, operations, begun = on_grids(network, own), [], [], shape
    for number, (layer, weights) in enumerate(layers):
        pool, step = _pool(layer, shape, rank), (1, 1)
        if pool is None:
            operations.append(_operation(layer, weights, shape, rank))
            shape, step = operations[-1].left, _strides(layer, rank)
            if step == (1, 1):
                continue
            pool = step, 1.0, shape
        window, scale, reach = pool
        operations = operations or [_nothing(shape)]
        stages.append(Stage(tuple(operations), begun, shape, window, scale, reach, step))
        _check_around(stages[-1])
        if window == (0, 0):
            return Plan(_reaching(stages), affine(layers[number + 1 :]))
        begun = shape = stages[-1].pooled
        operations = []
    raise NotApplicable("no pooling and no Flatten makes one vector of all positions")


def on_grids(network: AbstractLayer, own) -> list[tuple[AbstractLayer, Any]]:
    """The layers that do something to a grid that has been read, with what their weights do."""
    both = zip(network.sequence, network.in_sequence(own), strict=True)
    return [pair for pair in both if not isinstance(pair[0], (Identity, AbstractReader))]


def grid_of(network: AbstractLayer, sides: Sides, most: float, what: str) -> tuple[int, ...]:
    """The extents that the network reads; NotApplicable where inputs are `what`: have
    no axes of positions, or more than these."""
    found = jax.eval_shape(functools.partial(read, network), jnp.asarray(sides.x1[:1]))
    if isinstance(found, Known):
        raise NotApplicable("positions may be missing or linked")
    if not 1 <= found.ndim - 2 <= most:
        raise NotApplicable(f"inputs are {what}")
    return found.shape[1:-1]


def _check_around(stage: Stage) -> None:
    if not stage.around:
        return
    filters = [op for op in stage.operations if op.kind == FILTER]
    if stage.strided or not all(op.around or op.sizes[:2] == (1, 1) for op in filters):
        raise NotApplicable("filters that go round stand beside strides, or others that do not")
    if any(max(op.sizes[2:4]) > op.shape[0] or max(op.sizes[4:]) > op.shape[1] for op in filters):
        raise NotApplicable("filters go round more than once")


def _strides(layer: AbstractLayer, rank: int) -> Shape:
    if not isinstance(layer, Conv) or layer.strides is None:
        return (1, 1)
    return (1,) * (2 - rank) + layer.strides  # type: ignore[return-value]


def _reaching(stages: list[Stage]) -> tuple[Stage, ...]:
    """Stages that go as far as those behind them need: windows that lie d apart hold positions
    that lie up to (d + 1) windows apart, or, where only the first of each is there, d."""
    found = [stages[-1]]
    for stage in reversed(stages[:-1]):
        reach = []
        for axis, needed in enumerate(found[0].reach):
            window, step = stage.window[axis], stage.step[axis]
            most = needed * window + window - step
            whole = (stage.shape[axis] - 1) // step * step
            reach.append(whole if stage.around else min(most, whole))
        found.insert(0, stage._replace(reach=tuple(reach)))
    return tuple(found)


def _pool(layer: AbstractLayer, shape: Shape, rank: int) -> tuple[Shape, float, Shape] | None:
    """(window, scale, reach) of a layer that ends a stage; None for all others."""
    count = math.prod(shape)
    everywhere = shape[0] - 1, shape[1] - 1
    if isinstance(layer, GlobalAveragePool):
        return (0, 0), 1 / count**2, everywhere
    if isinstance(layer, GlobalSumPool):
        return (0, 0), 1.0, everywhere
    if isinstance(layer, Flatten):
        return (0, 0), 1 / count, (0, 0)
    if not isinstance(layer, (AveragePool, SumPool)):
        return None
    if layer.padding != "VALID" or layer.strides not in (None, layer.window):
        raise NotApplicable(f"the windows of {layer!r} overlap, or reach beyond the grid")
    window = (1,) * (2 - rank) + layer.window
    scale = 1.0 if isinstance(layer, SumPool) else 1 / math.prod(window) ** 2
    return window, scale, everywhere  # type: ignore[return-value]


def _nothing(shape: Shape) -> Operation:
    """A filter that leaves all as it is: a stage has one operation at least."""
    return Operation(FILTER, (1, 1, 0, 0, 0, 0), (1.0, 1, 0, 0, 1, 0.5, 1, 0), shape)


def _operation(layer: AbstractLayer, weights, shape: Shape, rank: int) -> Operation:
    if isinstance(layer, AbstractKinked):
        linear, kinked = layer.parts
        numbers = linear, kinked, 2 * linear + kinked / 2, 0, 1, 0.5, 0, 0
        return Operation(KINK, (1, 1, 0, 0, 0, 0), numbers, shape)
    if isinstance(layer, Conv):
        taps = layer.taps(shape[2 - rank :])
    elif isinstance(layer, Dense):
        taps = (Taps(1, 1, 0, 0),) * rank
    else:
        raise NotApplicable(f"{layer!r} is none of its layers")
    around = any(one.circular for one in taps)
    taps = (*(Taps(1, 1, 0, 0),) * (2 - rank), *taps)
    sizes = tuple(one.taps for one in taps), *((one.low, one.high) for one in taps)
    weight, bias = weights.weight, weights.bias
    each = 1 / math.prod(sizes[0])
    numbers = (weight.variance, weight.carry, weight.tangent, bias.tangent, 1, 0.5, each,
               bias.variance)  # fmt: skip
    return Operation(FILTER, sum(sizes, ()), tuple(map(float, numbers)), shape, around)


def affine(layers) -> tuple[tuple[float, ...], ...]:
    """What stands behind the last stage."""
    found = []
    for layer, weights in layers:
        if not isinstance(layer, (Dense, Readout)):
            raise NotApplicable(f"{layer!r} stands behind the positions")
        found.append(numbers_of(weights))
    return tuple(found)


def numbers_of(weights) -> tuple[float, ...]:
    """(variance, carry, tangent, bias's variance and tangent) of an affine layer."""
    weight, bias = weights.weight, weights.bias
    numbers = weight.variance, weight.carry, weight.tangent, bias.variance, bias.tangent
    return tuple(map(float, numbers))


def behind(last, nngp: Any, ntk: Any) -> tuple[Any, Any]:
    """Kernels behind what `affine` found."""
    for variance, carry, tangent, bias, own in last:
        nngp, ntk = variance * nngp + bias, carry * ntk + tangent * nngp + own
    return nngp, ntk
