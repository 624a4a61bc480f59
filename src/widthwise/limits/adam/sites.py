"""What a network, its scaling and an entrywise optimiser become at infinite width: constants of
each layer.

A weight enters as multiplier * w and is stepped by lr * rate * Q(n^d dLoss/dw). At width n the
outputs' slopes in pre-activations are n^-e times a backward field of order one, n^-e being the size
of the readout's entries. With the powers of the width that a lazy scaling gives its tensors, what Q
reads is of order one, and so is the sum of what all steps of a tensor do to the function.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from widthwise.network.build import slot_of, specify
from widthwise.network.layer import AbstractLayer, Chain
from widthwise.network.pointwise import AbstractNonlinearity
from widthwise.network.stack import of_stack, stack_of
from widthwise.network.weight import Weight
from widthwise.scaling import AbstractScaling, Role

# How many entries of a tensor move one output, as a power of the width.
ENTRIES = {Role.INPUT: 1.0, Role.BIAS: 1.0, Role.HIDDEN: 2.0, Role.OUTPUT: 1.0, Role.FIXED: 0.0}
POSITIVE = 0.01, 0.3, 1.0, 7.0  # where homogeneity is tried


class NoLimit(ValueError):
    """A scaling under which an entrywise optimiser has no limit; the message says why."""


class Tensor(NamedTuple):
    """One tensor in the limit: its constant in front, initial std, and factor on the step size."""

    gain: float
    std: float
    rate: float


class Site(NamedTuple):
    """An affine map, and the function behind it: None is the identity."""

    weight: Tensor
    bias: Tensor
    activation: AbstractNonlinearity | None


class Sites(NamedTuple):
    """Hidden layers first to last, and the readout."""

    hidden: tuple[Site, ...]
    readout: Site


def sites_of(network: AbstractLayer, scaling: AbstractScaling, n_inputs: int) -> Sites:
    """The constants of a plain stack of layers.

    >>> sites_of(Dense() >> Relu() >> Readout(), NTK(), 8).hidden[0].weight
    Tensor(gain=0.5, std=1.0, rate=1.0)

    Raises NoStack for other networks, NoLimit where gradients vanish or blow up before the
    optimiser reads them.
    """
    stack = stack_of(network)
    assert isinstance(network, Chain)
    specs = of_stack(stack, specify(network, n_inputs, None))
    readout = slot_of(specs[-1].weight, scaling, True)  # type: ignore[arg-type]
    size = (readout.multiplier * readout.std).exponent
    found = []
    for own, activation in zip(specs, (*stack.between, None), strict=True):
        weight: Any = own.weight
        bias: Any = own.bias
        found.append(Site(_tensor(weight, scaling, size), _tensor(bias, scaling, size), activation))
    if not any(site.weight.rate or site.bias.rate for site in found):
        raise NoLimit(f"under {scaling!r} no tensor's steps move the function: use NTK().")
    return Sites(tuple(found[:-1]), found[-1])


def _tensor(weight: Weight, scaling: AbstractScaling, size: float) -> Tensor:
    """`size` is -e, the power of the width in the outputs' slopes in pre-activations."""
    slot, role = slot_of(weight, scaling, True), weight.role
    behind = 0.0 if role in (Role.OUTPUT, Role.FIXED) else size
    gain, std, rate = (float(power.coefficient) for power in slot)
    slope = slot.multiplier.exponent + behind
    moved = ENTRIES[role] + slope + slot.rate.exponent
    if moved < -1e-9 or rate == 0 or gain == 0:
        return Tensor(gain, std, 0.0)  # what its steps do to the function vanishes
    read = slope + scaling.exponents(role, True).d
    if abs(read) > 1e-9 or moved > 1e-9:
        raise NoLimit(
            f"under {scaling!r} the gradients of {role.value} weights that Adam reads go "
            f"like n^{read:g}, against an eps that stays: use NTK(), which scales them (d)."
        )
    return Tensor(gain, std, rate)


def homogeneous(sites: Sites) -> bool:
    """Whether a number in front of any one layer's weights comes out in front of the function.

    Then weight decay, if it reaches every layer, rescales features and changes nothing else.
    """
    both = (*sites.hidden, sites.readout)
    x = jnp.asarray([-value for value in POSITIVE] + [*POSITIVE])
    return all(
        site.bias.gain * site.bias.std == site.bias.gain * site.bias.rate == 0
        and site.weight.rate > 0
        and _doubles(site.activation, x)
        for site in both
    )


def _doubles(activation: AbstractNonlinearity | None, x: Array) -> bool:
    # a factor of two changes no digit of a float
    return activation is None or bool(jnp.all(activation(2 * x) == 2 * activation(x)))


def variance(tensor: Tensor, fan_in: int = 1) -> float:
    """What a tensor adds to the variance of its layer, over the mean square of what it reads."""
    return fan_in * (tensor.gain * tensor.std) ** 2
