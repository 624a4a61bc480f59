"""The path that every network has: its layers' rules in turn, in float64, compiled by JAX."""

import abc
import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.kernels.path import AbstractPath, Sides
from widthwise.network.begin import begin, input_signal
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import AbstractMoments, Moments
from widthwise.network.pointwise import AbstractDual
from widthwise.network.signal import Pairs
from widthwise.solve.precision import float64

TILE = 512  # rows of a tile
BLOCKS = 32  # of rows that are kept as the compiled function reads them
# Pairs of positions in a tile: a dozen arrays of 2 MB are memory that is kept for the next tile,
# where larger ones are fresh each time, which costs more than what is done in them.
ENTRIES = 2**18
PERIOD = 8  # layers that are looked at for repetition


class AbstractTraced(AbstractPath):
    """A path whose tiles are one JAX function of two blocks of rows, in float64."""

    def __init__(self, network: AbstractLayer, own, sides: Sides, names: tuple[str, ...]):
        self.network, self.own, self.sides, self.names = network, own, sides, names
        self.rows = self.most_rows()
        self._block = functools.lru_cache(BLOCKS)(self._block)  # one copy serves many tiles

    @abc.abstractmethod
    def most_rows(self) -> int:
        """Rows of a tile."""

    @abc.abstractmethod
    def computed(self, x1: jax.Array, x2: jax.Array | None) -> Sequence[jax.Array]:
        """The matrices of x1 against x2, or against itself."""

    def tile(self, a: slice, b: slice):
        symmetric = self.sides.x2 is None
        same = symmetric and a == b
        with float64():
            x1 = self._block(0, a.start, a.stop)
            x2 = None if same else self._block(0 if symmetric else 1, b.start, b.stop)
            found = self.computed(x1, x2)
        rows, columns = len(self.sides.x1[a]), len(self.sides.other[b])
        cut = [np.asarray(kernel)[:rows, :columns] for kernel in found]
        return [mirrored(kernel) for kernel in cut] if same else cut

    def _block(self, side: int, start: int | None, stop: int | None) -> jax.Array:
        return padded((self.sides.x1, self.sides.other)[side][start:stop])


class RulesPath(AbstractTraced):
    """Moments carried through layer after layer."""

    name: ClassVar[str] = "rules"
    why = "every layer has a rule"

    def most_rows(self) -> int:
        return tile_rows(self.network, self.sides.x1.shape[1:])

    def computed(self, x1, x2):
        return _through(self.network, self.own, x1, x2, self.names, 1)


def tile_rows(network: AbstractLayer, shape: tuple[int, ...]) -> int:
    """Rows of a tile, so that it holds ENTRIES pairs of positions at most."""
    all_pairs = network.needs(Pairs.SAME) is Pairs.ALL
    each = float(most_positions(network, shape)) ** (1.0 if all_pairs else 0.5)
    return max(1, min(TILE, 1 << int(math.log2(max(1.0, ENTRIES**0.5 / each)))))


def most_positions(network: AbstractLayer, shape: tuple[int, ...]) -> int:
    """Positions of the largest grid that a network makes of a row."""
    incoming = input_signal(shape)
    most = incoming.positions or 1
    for layer in network.sequence:
        incoming = layer.signal(incoming)
        most = max(most, incoming.positions or 1)
    return most


def padded(x: np.ndarray) -> jax.Array:
    """Rows up to a power of two of them: a few compiled shapes serve all data."""
    size = max(8 if x.ndim == 2 else 1, 1 << (len(x) - 1).bit_length())
    # with a real row, so that no rule meets 0 / 0
    return jnp.asarray(np.pad(x, ((0, size - len(x)), *[(0, 0)] * (x.ndim - 1)), mode="edge"))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _through(network, own, x1, x2, names, once):
    found = _ended(_carried(network, own, begin(network, x1, x2), once))
    both = {"nngp": found.xy, "ntk": found.ntk}
    return [both[name] for name in names]


def _carried(network: AbstractLayer, own, moments: AbstractMoments, once):
    """network.kernel(own, moments), compiled layer by layer.

    XLA fuses what is elementwise and computes a value again for each of its readers, so that the
    work of a chain of layers doubles with each of them. It does not reach across loops: layers that
    repeat are one, which compiles once, and a nonlinearity that does not is a loop of one turn, a
    number (`once`) that is not known when this is compiled.
    """
    left = list(zip(network.sequence, network.in_sequence(own), strict=True))
    while left:
        size, repeats = _repeated([layer for layer, _ in left])
        layers = [layer for layer, _ in left[:size]]

        def group(moments, weights, layers=layers):
            for layer, one in zip(layers, weights, strict=True):
                moments = layer.kernel(one, moments)
            return moments

        weights = [[one for _, one in left[i * size :][:size]] for i in range(repeats)]
        loops = repeats > 1 or isinstance(layers[0], AbstractDual)
        if not (loops and _keeps_its_form(group, moments, weights[0])):
            moments = layers[0].kernel(left[0][1], moments)
            left = left[1:]
            continue
        left = left[size * repeats :]
        if repeats > 1:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
            moments, _ = jax.lax.scan(
                lambda m, w, f=group: (f(m, w), None), moments, stacked, length=repeats
            )
        else:
            moments = jax.lax.fori_loop(
                0, once, lambda _, m, f=group, w=weights[0]: f(m, w), moments
            )
    return moments


def _repeated(layers: list[AbstractLayer]) -> tuple[int, int]:
    """How many layers in front repeat, and how often: what covers the most, in the fewest."""
    best = 1, 1
    for size in range(1, PERIOD + 1):
        repeats = 1
        while layers[repeats * size :][:size] == layers[:size] and len(layers) >= size:
            repeats += 1
        if repeats > 1 and size * repeats > math.prod(best):
            best = size, repeats
    return best


def _keeps_its_form(group, moments, weights) -> bool:
    """Whether a loop may carry these moments: types and shapes stay."""
    before, after = jax.eval_shape(lambda m: m, moments), jax.eval_shape(group, moments, weights)
    return jax.tree.structure(before) == jax.tree.structure(after) and all(
        a.shape == b.shape and a.dtype == b.dtype
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


@functools.partial(jax.jit, static_argnums=0)
def alone(network: AbstractLayer, own, x):
    """(nngp, ntk) of each row against itself."""

    def one(row):
        found = _ended(network.kernel(own, begin(network, row[None])))
        return found.xy[0, 0], found.ntk[0, 0]

    return jax.vmap(one)(x)


@functools.partial(jax.jit, static_argnums=0)
def each_layer(network: AbstractLayer, own, x):
    """The covariance of the features after each layer of a chain."""
    moments, found = begin(network, x), []
    for layer, weights in zip(network.sequence, network.in_sequence(own), strict=True):
        moments = layer.kernel(weights, moments)
        found.append(_ended(moments.flattened()).xy)
    return found


def _ended(moments: AbstractMoments) -> Moments:
    """A vector's."""
    found = moments.mixed()
    assert isinstance(found, Moments)  # who asks has seen to it
    return found


def mirrored(kernel: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Symmetric to the last digit, which rules that treat x and y in turn are not."""
    return np.triu(kernel) + np.triu(kernel, 1).T
