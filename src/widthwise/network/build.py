"""A network meets data and a scaling: its tensors' sizes, powers and limits."""

import math

import jax
from jaxtyping import PyTree

from widthwise.network.layer import AbstractLayer, Weight
from widthwise.network.moments import Tangent
from widthwise.network.signal import OUTPUTS, Size, Vector
from widthwise.scaling import AbstractScaling, Power, Slot


def is_weight(node) -> bool:
    return isinstance(node, Weight)


def specify(network: AbstractLayer, n_inputs: int, n_outputs: int | None) -> PyTree[Weight]:
    """The tensors of a network on inputs of this size. `n_outputs` None leaves a readout one.

    Raises ValueError where the network does not end in a readout but outputs are asked for.
    """
    start = Vector(Size(fixed=n_inputs), gaussian=False)
    leaving = network.signal(start)
    if n_outputs is not None and leaving.size != OUTPUTS:
        raise ValueError(f"{network!r} does not end in Readout(): add `>> Readout()`.")

    def resolve(weight: Weight) -> Weight:
        ends = weight.fan_out == OUTPUTS
        fan_out = Size(fixed=n_outputs or 1) if ends else weight.fan_out
        return Weight(weight.fan_in, fan_out, weight.variance, weight.gain, weight.trained)

    return jax.tree.map(resolve, network.weights(start), is_leaf=is_weight)


def slot_of(weight: Weight, scaling: AbstractScaling, entrywise: bool = False) -> Slot:
    """Multiplier, initial std and step size of one tensor, as powers of the width."""
    gain, std = weight.natural()
    slot = scaling.slot(weight.role, gain, std, is_bias=weight.fan_in is None, entrywise=entrywise)
    return slot if weight.trained else slot._replace(rate=Power(0.0, slot.rate.exponent))


def tangents(
    network: AbstractLayer, n_inputs: int, scaling: AbstractScaling, width: float = math.inf
) -> PyTree[Tangent]:
    """What each tensor contributes to covariances and tangent kernel at a width, in the mean.

    At finite width this is the infinite-width recursion with that width's constants (some
    kernels of the standard parametrization depend on it); at inf, its limit.
    """

    def limit(weight: Weight) -> Tangent:
        inputs = _fan_in(weight)
        slot = slot_of(weight, scaling)
        tangent = slot.multiplier * slot.multiplier * inputs * slot.rate
        # The covariance is linear in the variance: written so, its gradient is finite at 0 too.
        unit = slot_of(Weight(weight.fan_in, weight.fan_out, 1.0, weight.gain), scaling)
        entry = unit.multiplier * unit.std
        return Tangent(weight.variance * (entry * entry * inputs).at(width), tangent.at(width))

    return jax.tree.map(limit, specify(network, n_inputs, None), is_leaf=is_weight)


def _fan_in(weight: Weight) -> Power:
    """Its fan-in as a power of the width; a bias reads the constant 1."""
    if weight.fan_in is None:
        return Power(1.0)
    if weight.fan_in.grows:
        return Power(float(weight.fan_in.times), 1.0)
    return Power(float(weight.fan_in.fixed))
