"""A network meets data and a scaling: its tensors' sizes, powers and limits."""

import dataclasses
import math

import jax
from jaxtyping import PyTree

from widthwise.network.begin import input_signal
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import Tangent
from widthwise.network.signal import OUTPUTS, Size
from widthwise.network.weight import Weight
from widthwise.scaling import AbstractScaling, Power, Role, Slot


def is_weight(node) -> bool:
    return isinstance(node, Weight)


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
