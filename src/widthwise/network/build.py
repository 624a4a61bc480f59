"""A network meets data and a scaling: its tensors' sizes, powers and limits."""

import dataclasses
import functools
import itertools
import math

import jax
from jaxtyping import PyTree

from widthwise.network.grid import PairGrid, SameGrid
from widthwise.network.layer import AbstractLayer, Chain, Weight
from widthwise.network.moments import AbstractMoments, Moments, Tangent
from widthwise.network.reader import AbstractReader
from widthwise.network.signal import OUTPUTS, Pairs, Signal, Size
from widthwise.scaling import AbstractScaling, Power, Role, Slot


def is_weight(node) -> bool:
    return isinstance(node, Weight)


def input_signal(inputs: int | tuple[int, ...]) -> Signal:
    """Rows of so many features, or grids of positions: (extents ..., features).

    >>> str(input_signal((8, 8, 3)))
    '8 x 8 x 3 features'
    """
    *shape, size = (inputs,) if isinstance(inputs, int) else inputs
    return Signal(Size(fixed=size), False, tuple(shape))


def specify(
    network: AbstractLayer, inputs: int | tuple[int, ...], n_outputs: int | None
) -> PyTree[Weight]:
    """The tensors of a network on such inputs. `n_outputs` None leaves a readout one.

    Raises ValueError where the network does not end in a readout but outputs are asked for.
    """
    start = input_signal(inputs)
    leaving = network.signal(start)
    if n_outputs is not None and leaving.size != OUTPUTS:
        raise ValueError(f"{network!r} does not end in Readout(): add `>> Readout()`.")

    def resolve(weight: Weight) -> Weight:
        ends = weight.fan_out == OUTPUTS
        fan_out = Size(fixed=n_outputs or 1) if ends else weight.fan_out
        return dataclasses.replace(weight, fan_out=fan_out)

    return jax.tree.map(resolve, network.weights(start), is_leaf=is_weight)


def begin(network: AbstractLayer, x, y=None) -> AbstractMoments:
    """The moments of rows of data, or of grids (n, extents ..., features), as a network reads
    them: only such pairs of positions as it needs."""
    for layer in readers(network):
        read = jax.vmap(functools.partial(layer.apply, None))
        x, y = read(x), None if y is None else read(y)
    if x.ndim == 2:
        return Moments.of(x, y)
    kind = PairGrid if network.needs(Pairs.SAME) is Pairs.ALL else SameGrid
    return kind.of(x, y)


def readers(network: AbstractLayer) -> tuple[AbstractReader, ...]:
    """The layers in front that say how data is read."""
    layers = network.layers if isinstance(network, Chain) else (network,)
    return tuple(itertools.takewhile(lambda layer: isinstance(layer, AbstractReader), layers))  # type: ignore[arg-type]


def trial_inputs(network: AbstractLayer) -> int | tuple[int, ...]:
    """Inputs that a network could have, where there are none yet: what depends on the layers alone
    may be read off with them."""
    reading = readers(network)
    if reading:
        return reading[0].columns
    for inputs in (1, *((*(extent,) * rank, 1) for extent in (16, 128) for rank in (1, 2, 3))):
        try:
            network.signal(input_signal(inputs))
        except ValueError:
            continue
        return inputs
    return 1  # and whoever reads it meets the network's own sentence


def slot_of(weight: Weight, scaling: AbstractScaling, entrywise: bool = False) -> Slot:
    """Multiplier, initial std and step size of one tensor, as powers of the width."""
    gain, std = weight.natural()
    slot = scaling.slot(weight.role, gain, std, is_bias=weight.fan_in is None, entrywise=entrywise)
    return slot._replace(rate=slot.rate * Power(weight.lr_multiplier))


def tangents(
    network: AbstractLayer,
    inputs: int | tuple[int, ...],
    scaling: AbstractScaling,
    width: float = math.inf,
) -> PyTree[Tangent]:
    """What each tensor contributes to covariances and tangent kernel at a width, in the mean.

    At finite width this is the infinite-width recursion with that width's constants (some
    kernels of the standard parametrization depend on it); at inf, its limit.
    """

    specs = specify(network, inputs, None)
    vanishing = output_exponent(specs, scaling) if math.isinf(width) else 0.0

    def limit(weight: Weight) -> Tangent:
        variance, tangent = _powers(weight, scaling)
        found = variance.at(width)
        if weight.role is Role.OUTPUT:
            return Tangent(found, tangent.at(width), (variance * Power(1.0, -vanishing)).at(width))
        if weight.role is not Role.FIXED:
            tangent = tangent * Power(1.0, vanishing)
        return Tangent(found, tangent.at(width), found)

    return jax.tree.map(limit, specs, is_leaf=is_weight)


def _powers(weight: Weight, scaling: AbstractScaling) -> tuple[Power, Power]:
    """(variance, tangent) of a weight, as powers of the width."""
    slot, inputs = slot_of(weight, scaling), _fan_in(weight)
    # The covariance is linear in the variance: written so, its gradient is finite at 0 too.
    unit = slot_of(dataclasses.replace(weight, variance=1.0, lr_multiplier=1.0), scaling)
    entry = unit.multiplier * unit.std
    variance = entry * entry * inputs * Power(weight.variance)
    return variance, slot.multiplier * slot.multiplier * inputs * slot.rate


def output_exponent(specs: PyTree[Weight], scaling: AbstractScaling) -> float:
    """The power of the width by which the initial function's variance vanishes, 0 or below.

    Between muP and NTK it does, and what it takes from the readout the earlier weights' steps give
    back: their product, which the tangent kernel is made of, is of order one.
    """
    outputs = (w for w in jax.tree.leaves(specs, is_leaf=is_weight) if w.role is Role.OUTPUT)
    return min((_powers(weight, scaling)[0].exponent for weight in outputs), default=0.0)


def _fan_in(weight: Weight) -> Power:
    """Its fan-in as a power of the width; a bias reads the constant 1."""
    count = weight.inputs
    return Power(float(count.times), 1.0) if count.grows else Power(float(count.fixed))
