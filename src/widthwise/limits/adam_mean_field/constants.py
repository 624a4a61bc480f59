"""What a one-hidden-layer network and its scaling become at infinite width under Adam.

A neuron is a particle: its input weights u and bias b, of order one, and its readout weights v,
which are n times those of the network. Its gradients are those of f = E[v phi(u x + b)] + c; what
is left of each tensor's multiplier, standard deviation, step size and gradient scale is three
numbers.
"""

import math
from typing import NamedTuple

from widthwise.network.build import slot_of, specify
from widthwise.network.layer import AbstractLayer, Chain
from widthwise.network.names import layer_names
from widthwise.network.pointwise import AbstractNonlinearity
from widthwise.network.stack import of_stack, stack_of
from widthwise.network.weight import Weight
from widthwise.scaling import AbstractScaling, Power, Role

# n to these powers, times a weight and times the gradient in a neuron's own coordinates, makes the
# network's: a readout weight is v / n, and a neuron moves the function by 1 / n of its share.
COORDINATE = {Role.INPUT: 0.0, Role.BIAS: 0.0, Role.OUTPUT: -1.0, Role.FIXED: 0.0}
SHARE = {Role.INPUT: -1.0, Role.BIAS: -1.0, Role.OUTPUT: 0.0, Role.FIXED: 0.0}


class Tensor(NamedTuple):
    """One tensor in the limit."""

    std: float  # of its initial value
    gradient: float  # brings a neuron's gradient to what Adam sees
    step: float  # brings Adam's answer back
    trained: bool  # weight decay shrinks what is trained, however small its step


class Layer(NamedTuple):
    """The hidden layer and the readout."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor]  # weight, bias, readout, its bias
    activation: AbstractNonlinearity | None  # None is the identity
    name: str | None  # under which its kernel is logged


def layer_of(network: AbstractLayer, scaling: AbstractScaling, n_inputs: int) -> Layer:
    """The constants of a stack with one hidden layer.

    >>> layer_of(Dense() >> Relu() >> Readout(), MuP(gamma0=2.0), 8).tensors[2]
    Tensor(std=0.25, gradient=0.25, step=0.5, trained=True)
    """
    stack = stack_of(network)
    assert isinstance(network, Chain)
    (activation,) = stack.between
    names = dict(layer_names(network))
    weight, bias, readout, constant = (
        _tensor(weight, scaling) for weight in _weights(network, n_inputs)
    )
    tensors = weight, bias, readout, constant
    return Layer(tensors, activation, names.get(stack.affine[0] + (activation is not None)))


def unfaithful(network: AbstractLayer, scaling: AbstractScaling) -> bool:
    """Whether gradients, as Adam sees them, leave order one as the width grows: next to them its
    eps then becomes nothing, or everything."""
    found = (gradient_of(weight, scaling) for weight in _weights(network, 1))
    return any(power.coefficient != 0 and abs(power.exponent) > 1e-9 for power in found)


def gradient_of(weight: Weight, scaling: AbstractScaling) -> Power:
    """What brings a neuron's gradient to what Adam sees."""
    grown = scaling.exponents(weight.role, entrywise=True).d
    multiplier = slot_of(weight, scaling, entrywise=True).multiplier
    return multiplier * Power(1.0, grown + SHARE[weight.role])


def _weights(network: AbstractLayer, n_inputs: int) -> tuple[Weight, ...]:
    """Those of the hidden layer, its bias, the readout, its bias."""
    hidden, last = of_stack(stack_of(network), specify(network, n_inputs, None))
    return hidden.weight, hidden.bias, last.weight, last.bias  # type: ignore[return-value]


def _tensor(weight: Weight, scaling: AbstractScaling) -> Tensor:
    slot = slot_of(weight, scaling, entrywise=True)
    product = slot.multiplier * Power(1.0, -COORDINATE[weight.role])
    std, gradient, step = (
        float(power.at(math.inf))
        for power in (product * slot.std, gradient_of(weight, scaling), product * slot.rate)
    )
    return Tensor(std, gradient, step, bool(slot.rate.coefficient != 0))
