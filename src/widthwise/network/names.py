"""Which layers of a network are logged, and under which names."""

from widthwise.network.dense import Readout
from widthwise.network.layer import AbstractLayer
from widthwise.network.nonlinear import AbstractNonlinearity


def layer_names(network: AbstractLayer) -> tuple[tuple[int, str], ...]:
    """(position, name) of the layers whose features are logged: every nonlinearity, and whatever
    the readout reads.

    >>> layer_names(Dense() >> Relu() >> Dense() >> Erf() >> Readout())
    ((1, '1 Relu()'), (3, '2 Erf()'))
    """
    layers = network.sequence
    positions = [
        i
        for i, layer in enumerate(layers)
        if isinstance(layer, AbstractNonlinearity)
        or (i + 1 < len(layers) and isinstance(layers[i + 1], Readout))
    ]
    return tuple((i, f"{count} {layers[i]!r}") for count, i in enumerate(positions, start=1))
