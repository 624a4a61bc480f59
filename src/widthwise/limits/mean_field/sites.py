"""What a network and its scaling become at infinite width: constants of each layer.

Weights enter as V = multiplier * w and are stepped by lr * rate * multiplier^2 * dLoss/dV. With the
powers of the width that muP gives them, sums over n neurons become means, and what is left of each
tensor is two numbers: `std`, of its initial product, and `step`, in front of the step size.
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

# The powers of the width, of std and of step, at which a tensor's part is of order one: the
# readout is seen as n times itself, whose gradients are the backward fields.
NATURAL = {
    Role.INPUT: (0.0, 1.0),
    Role.BIAS: (0.0, 1.0),
    Role.HIDDEN: (-0.5, 0.0),
    Role.OUTPUT: (-1.0, -1.0),
    Role.FIXED: (0.0, 0.0),
}


class Tensor(NamedTuple):
    """One tensor in the limit."""

    std: float
    step: float
    trained: bool  # weight decay shrinks what is trained, however small its step


class Site(NamedTuple):
    """A layer of neurons: the affine map into it and what happens there."""

    weight: Tensor
    bias: Tensor
    activation: AbstractNonlinearity | None  # None is the identity
    name: str | None  # under which its kernel is logged


class Sites(NamedTuple):
    """Hidden layers first to last, and the readout."""

    hidden: tuple[Site, ...]
    weight: Tensor
    bias: Tensor

    @property
    def linear(self) -> bool:
        return all(site.activation is None for site in self.hidden)


def sites_of(network: AbstractLayer, scaling: AbstractScaling, n_inputs: int) -> Sites:
    """The constants of a plain stack of layers.

    >>> sites_of(Dense() >> Relu() >> Readout(), MuP(gamma0=2.0), 8).hidden[0].weight
    Tensor(std=0.5, step=1.0, trained=True)

    Raises NoStack for other networks.
    """
    stack = stack_of(network)
    assert isinstance(network, Chain)
    names = dict(layer_names(network))
    *hidden, last = (
        (_tensor(own.weight, scaling), _tensor(own.bias, scaling))  # type: ignore[arg-type]
        for own in of_stack(stack, specify(network, n_inputs, None))
    )
    found = [
        Site(*tensors, activation, names.get(position + (activation is not None)))
        for tensors, position, activation in zip(hidden, stack.affine, stack.between, strict=False)
    ]
    return Sites(tuple(found), *last)


def _tensor(weight: Weight, scaling: AbstractScaling) -> Tensor:
    slot, (spread, pace) = slot_of(weight, scaling), NATURAL[weight.role]
    std = slot.multiplier * slot.std * Power(1.0, -spread)
    step = slot.rate * slot.multiplier * slot.multiplier * Power(1.0, -pace)
    trained = bool(slot.rate.coefficient != 0)
    return Tensor(float(std.at(math.inf)), float(step.at(math.inf)), trained)
