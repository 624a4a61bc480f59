"""Where a network begins: what its inputs are, and their moments."""

import functools
import itertools

import jax

from widthwise.network.grid import SameGrid
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import AbstractMoments, Moments
from widthwise.network.pairs import PairGrid
from widthwise.network.reader import AbstractReader
from widthwise.network.signal import Pairs, Signal, Size


def input_signal(inputs: int | tuple[int, ...]) -> Signal:
    """Rows of so many features, or grids of positions: (extents ..., features).

    >>> str(input_signal((8, 8, 3)))
    '8 x 8 x 3 features'
    """
    *shape, size = (inputs,) if isinstance(inputs, int) else inputs
    return Signal(Size(fixed=size), False, tuple(shape))


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
    found = itertools.takewhile(lambda layer: isinstance(layer, AbstractReader), network.sequence)
    return tuple(found)  # type: ignore[arg-type]


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
