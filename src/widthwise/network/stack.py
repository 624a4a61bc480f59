"""Networks that are plain stacks: affine layers with one nonlinearity between two of them."""

from typing import NamedTuple

from widthwise.network.dense import Affine, Dense, Readout
from widthwise.network.layer import AbstractLayer, Chain
from widthwise.network.pointwise import AbstractNonlinearity


class Stack(NamedTuple):
    """Positions in a chain of affine layers, and what stands between them: one entry fewer."""

    affine: tuple[int, ...]
    between: tuple[AbstractNonlinearity | None, ...]


class NoStack(ValueError):
    """A network that is no stack; the message says where."""


def stack_of(network: AbstractLayer) -> Stack:
    """The stack that a network is.

    >>> stack_of(Dense() >> Relu() >> Dense() >> Readout()).between
    (Relu(), None)

    Raises NoStack for sums, layers of other widths, and whatever does not end in a readout.
    """
    layers = network.layers if isinstance(network, Chain) else (network,)
    affine: list[int] = []
    between: list[AbstractNonlinearity | None] = []
    for position, layer in enumerate(layers):
        if isinstance(layer, Dense | Readout):
            if isinstance(layer, Dense) and layer.times != 1:
                raise NoStack(f"{layer!r} is wider than the others: use times=1.")
            affine.append(position)
            between.append(None)
        elif isinstance(layer, AbstractNonlinearity) and affine and between[-1] is None:
            between[-1] = layer
        else:
            raise NoStack(f"{layer!r} stands where a plain stack has none: use Dense and Readout.")
    if not affine or affine[-1] != len(layers) - 1 or not isinstance(layers[-1], Readout):
        raise NoStack(f"{network!r} does not end in Readout(): add `>> Readout()`.")
    if len(affine) < 2:
        raise NoStack(f"{network!r} has no hidden layer: put Dense() in front.")
    return Stack(tuple(affine), tuple(between[:-1]))


def of_stack(stack: Stack, tree) -> tuple[Affine, ...]:
    """A tree of the chain's weights, that of its affine layers only."""
    return tuple(tree[position] for position in stack.affine)
