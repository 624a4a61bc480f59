"""Where a network begins: what its inputs are, and their moments."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.network.context import Known, run, values_of
from widthwise.network.grid import SameGrid
from widthwise.network.known import KnownGrid
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import AbstractMoments, Moments
from widthwise.network.pairs import PairGrid
from widthwise.network.reader import AbstractReader, Unflatten
from widthwise.network.signal import Pairs, Signal, Size


def input_signal(inputs: int | tuple[int, ...]) -> Signal:
    """Rows of so many features, or grids of positions: (extents ..., features).

    >>> str(input_signal((8, 8, 3)))
    '8 x 8 x 3 features'
    """
    *shape, size = (inputs,) if isinstance(inputs, int) else inputs
    return Signal(Size(fixed=size), False, tuple(shape), linked=False)


def begin(network: AbstractLayer, x, y=None, end: Pairs = Pairs.SAME) -> AbstractMoments:
    """The moments of rows of data, or of grids (n, extents ..., features), as a network reads
    them: only such pairs of positions as it needs, if `end` is what its own are needed for."""
    x, y = read(network, x), None if y is None else read(network, y)
    rows, others = values_of(x), None if y is None else values_of(y)
    if rows.ndim == 2:
        return Moments.of(rows, others)
    kind = PairGrid if network.needs(end) is Pairs.ALL else SameGrid
    grid = kind.of(rows, others)
    if not isinstance(x, Known):
        return grid
    return KnownGrid.of(grid, x.context, None if y is None else y.context)


def read(network: AbstractLayer, x):
    """Rows of data as a network reads them: arrays, or `Known` where positions are."""
    for layer in readers(network):
        x = jax.vmap(functools.partial(run, layer, None))(x)
    return x


def check_rows(network: AbstractLayer, x) -> None:
    """Raises ValueError where rows do not fit a network, and where one of them has no position left
    somewhere in it."""
    network.signal(input_signal(x.shape[1:]))
    if not isinstance(jax.eval_shape(functools.partial(read, network), x), Known):
        return
    known = read(network, jnp.asarray(x))
    assert isinstance(known, Known)
    context = known.context
    for layer in (None, *network.sequence):
        if layer is not None and not isinstance(layer, AbstractReader):
            context = jax.vmap(layer.after)(context)
        if context is None or context.present is None:
            return
        left = np.asarray(jnp.sum(context.present.reshape(len(x), -1), axis=1))
        if not left.all():
            where = "" if layer is None else f" behind {layer!r}"
            raise ValueError(
                f"Row {int(np.argmin(left > 0))} has no position{where}: all of them are marked as "
                "missing, so drop the row, or look at `missing` of Masked()."
            )


def readers(network: AbstractLayer) -> tuple[AbstractReader, ...]:
    """The layers in front that say how data is read."""
    found = itertools.takewhile(lambda layer: isinstance(layer, AbstractReader), network.sequence)
    return tuple(found)  # type: ignore[arg-type]


def trial_inputs(network: AbstractLayer) -> int | tuple[int, ...]:
    """Inputs that a network could have, where there are none yet: what depends on the layers alone
    may be read off with them."""
    reading = readers(network)
    if reading and isinstance(reading[0], Unflatten):
        return reading[0].columns
    grids = ((*(extent,) * rank, 1) for extent in (16, 128) for rank in (1, 2, 3))
    for inputs in (1, *grids, (16, 17)):
        try:
            network.signal(input_signal(inputs))
        except ValueError:
            continue
        return inputs
    return 1  # and whoever reads it meets the network's own sentence
