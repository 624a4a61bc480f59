"""A network meets data and a scaling: its tensors' sizes, powers and limits."""

import math

import jax
from jaxtyping import PyTree

from widthwise.network.layer import AbstractLayer, Weight
from widthwise.network.moments import Tangent
from widthwise.network.signal import OUTPUTS, Size, Vector
from widthwise.scaling import AbstractScaling, Power, Role, Slot


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
        return Weight(weight.fan_in, fan_out, weight.variance, weight.gain, weight.lr_multiplier)

    return jax.tree.map(resolve, network.weights(start), is_leaf=is_weight)


def slot_of(weight: Weight, scaling: AbstractScaling, entrywise: bool = False) -> Slot:
    """Multiplier, initial std and step size of one tensor, as powers of the width."""
    gain, std = weight.natural()
    slot = scaling.slot(weight.role, gain, std, is_bias=weight.fan_in is None, entrywise=entrywise)
    return slot._replace(rate=slot.rate * Power(weight.lr_multiplier))


def tangents(
    network: AbstractLayer, n_inputs: int, scaling: AbstractScaling, width: float = math.inf
) -> PyTree[Tangent]:
    """What each tensor contributes to covariances and tangent kernel at a width, in the mean.

    At finite width this is the infinite-width recursion with that width's constants (some
    kernels of the standard parametrization depend on it); at inf, its limit.
    """

    specs = specify(network, n_inputs, None)
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
    unit = slot_of(Weight(weight.fan_in, weight.fan_out, 1.0, weight.gain), scaling)
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
    if weight.fan_in is None:
        return Power(1.0)
    if weight.fan_in.grows:
        return Power(float(weight.fan_in.times), 1.0)
    return Power(float(weight.fan_in.fixed))
