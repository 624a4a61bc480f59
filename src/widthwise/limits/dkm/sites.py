"""A network as a machine with inducing variables: what is free in each layer, and rows through it.

What is free is kept in the network's own shape: a tuple for a chain or for branches, a `Free` for a
layer of weights, None for all else.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from widthwise.inference import Inducing
from widthwise.limits.dkm.blocks import (
    read_by,
)
from widthwise.limits.dkm.full import whiten
from widthwise.limits.dkm.layers import as_drawn
from widthwise.network.begin import input_signal, read, readers
from widthwise.network.build import tangents
from widthwise.network.conv import Conv
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Chain, Identity, Sum
from widthwise.network.normalise import LayerNorm
from widthwise.network.pointwise import AbstractDual
from widthwise.network.pool import AveragePool, GlobalAveragePool, GlobalSumPool, SumPool
from widthwise.network.reader import Unflatten
from widthwise.network.signal import Signal
from widthwise.scaling import AbstractScaling

GLOBAL = GlobalAveragePool | GlobalSumPool
POOLS = GLOBAL | AveragePool | SumPool
MAPS = AbstractDual | LayerNorm | Identity


class Machine(NamedTuple):
    """A network on rows of so many columns, with inducing variables: all that is settled.

    `points` has a number for each resolution, the largest grid first; vectors have one.
    """

    network: AbstractLayer
    columns: int
    scaling: AbstractScaling
    points: tuple[int, ...]
    nu: float | tuple[float, ...]

    @property
    def own(self) -> Any:
        """What the weights do to covariances."""
        found = tangents(self.network, self.columns, as_drawn(self.scaling))
        return self.network.in_sequence(found)

    @property
    def vectors(self) -> bool:
        """Whether the network reads vectors, and has no positions anywhere."""
        return not readers(self.network)


class Site(NamedTuple):
    """A layer of weights: the sizes of what is free in it.

    `reads` numbers are read of a row at a position by the first layer, `mixes` (taps, m) inducing
    variables by a filter; `points` are its own inducing variables, and `rank` the size of its
    triangle, 0 where its Gram matrix stays that of the prior.
    """

    name: str
    reads: int
    mixes: tuple[int, int] | None
    points: int
    rank: int
    nu: float


class Free(NamedTuple):
    """What is free in a layer of weights, or a gradient of it; None where a layer has it not.

    Inducing inputs `z` (m, f) of the first layer, the mixture `mix` (taps, m, o) of a filter, and
    `triangle` (r, r), whose whitened T is the Gram matrix (see `whiten`).
    """

    z: Any
    mix: Any
    triangle: Any


def is_free(node: Any) -> bool:
    return isinstance(node, Free)


def is_site(node: Any) -> bool:
    return isinstance(node, Site)


def refusal_of(network: AbstractLayer) -> str | None:
    """Why a network is none that inducing variables go through, in a sentence; None where it is."""
    if (sentence := network.refusal()) is not None:
        return sentence
    weighty = [x for x in network.sequence if isinstance(x, Conv | Dense | Readout | Sum)]
    for layer in network.sequence:
        if (sentence := _refusal(layer)) is not None:
            return sentence
    first = network.sequence[len(readers(network))]
    if not isinstance(first, Conv | Dense):
        return (
            f"Inducing points are inputs of the first layer of weights, and {first!r} stands in "
            "front of it: put Conv() or Dense() first."
        )
    if len(weighty) < 2:
        return "The network has no hidden layer whose features could learn: put Dense() in front."
    return None


def _refusal(layer: AbstractLayer) -> str | None:
    if isinstance(layer, Sum | Chain):
        return next((x for inner in layer.inside if (x := _refusal(inner)) is not None), None)
    known = isinstance(layer, MAPS | POOLS | Conv | Dense | Readout | Unflatten)
    if known and not (isinstance(layer, LayerNorm) and layer.axes):
        return None
    return (
        "Inducing points go through Conv, Dense, poolings, sums and functions of the features at "
        f"one position, and the network has {layer!r}: leave it out, or put GlobalAveragePool() "
        "where Flatten() stands."
    )


def sites_of(machine: Machine) -> Any:
    """The sizes of what is free, in the network's shape.

    Raises ValueError where the numbers of points are not one for each resolution, or nus not one
    for each hidden layer.
    """
    walk = _Sizes(machine)
    found = walk.chain(machine.network.sequence, input_signal(machine.columns), 0)[0]
    walk.check()
    return found


class _Sizes:
    """Visits the layers in turn, and remembers the grids and layers that it met."""

    def __init__(self, machine: Machine):
        self._machine = machine
        self._grids: list[tuple[int, ...]] = []
        self._hidden = 0

    def chain(self, layers, incoming: Signal, points: int) -> tuple[Any, int]:
        found = []
        for layer in layers:
            one, points = self.layer(layer, incoming, points)
            found.append(one)
            incoming = layer.signal(incoming)
        return tuple(found), points

    def layer(self, layer: AbstractLayer, incoming: Signal, points: int) -> tuple[Any, int]:
        if isinstance(layer, Chain):
            return self.chain(layer.layers, incoming, points)
        if isinstance(layer, Sum):
            both = [self.layer(branch, incoming, points) for branch in layer.branches]
            counts = {count for _, count in both}
            if len(counts) > 1:
                raise ValueError(
                    f"The branches of {layer!r} have {' and '.join(map(str, sorted(counts)))} "
                    "inducing points: give their resolutions equal numbers."
                )
            return tuple(one for one, _ in both), counts.pop()
        if isinstance(layer, Conv | Dense | Readout):
            return self._weights(layer, incoming, points)
        return None, points

    def _weights(self, layer, incoming: Signal, before: int) -> tuple[Site, int]:
        if isinstance(layer, Readout):
            return Site(repr(layer), 0, None, before, 0, math.inf), before
        taps = math.prod(layer.filter_shape) if isinstance(layer, Conv) else 1
        points, nu = self._points(layer.signal(incoming).shape, before), self._nu(layer.times)
        if before:
            mixes = (taps, before) if isinstance(layer, Conv) else None
            rank = 0 if math.isinf(nu) else points
            return Site(repr(layer), 0, mixes, points, rank, nu), points
        assert incoming.size is not None
        count = taps * incoming.size.fixed
        # with fewer inputs than points the triangle is of the weights themselves: see `begun`
        rank = 0 if math.isinf(nu) else min(count + int(layer.bias_variance > 0), points)
        return Site(repr(layer), count, None, points, rank, nu), points

    def _points(self, shape: Any, before: int) -> int:
        if before and (shape == () or self._grids[-1] == shape):
            return before  # a vector has the inducing variables of the grid that it was
        if shape not in self._grids:
            self._grids.append(shape)
        number, given = self._grids.index(shape), self._machine.points
        return given[min(number, len(given) - 1)]

    def _nu(self, times: int) -> float:
        self._hidden += 1
        nu = self._machine.nu
        if isinstance(nu, tuple):
            nu = nu[min(self._hidden, len(nu)) - 1]
        return float(nu * times)

    def check(self) -> None:
        points, nu = self._machine.points, self._machine.nu
        if len(points) not in (1, len(self._grids)):
            shapes = ", ".join(" x ".join(map(str, shape)) or "one" for shape in self._grids)
            raise ValueError(
                f"points of Inducing is {points}, and the network has {len(self._grids)} grids of "
                f"positions ({shapes}): give one number for each."
            )
        if isinstance(nu, tuple) and len(nu) != self._hidden:
            raise ValueError(
                f"nu of Posterior is {nu}, and the network has {self._hidden} hidden layers: give "
                "one number for each, or one for all."
            )


def points_of(inducing: Inducing) -> tuple[int, ...]:
    """One number for each resolution, or one for all."""
    points = inducing.points
    return points if isinstance(points, tuple) else (points,)


def spreads(sites: Any, free: Any) -> Any:
    """T of every layer, by which its Gram matrix differs from its prior; None where it does not."""

    def one(site: Site, own: Free):
        return None if own.triangle is None else whiten(own.triangle, site.nu)

    return jax.tree.map(one, sites, free, is_leaf=lambda x: is_site(x) or is_free(x))


def drawn(machine: Machine, first: Float[np.ndarray, "m f"], rng: np.random.Generator) -> Any:
    """What is free where training starts: Gram matrices of the prior, inducing inputs from the
    data, mixtures at random."""

    def one(site: Site) -> Free:
        mix = None
        if site.mixes is not None:
            mix = rng.normal(size=(*site.mixes, site.points))
        triangle = np.zeros((site.rank, site.rank)) if site.rank else None
        return Free(first if site.reads else None, mix, triangle)

    return jax.tree.map(one, sites_of(machine), is_leaf=is_site)


def nearby(
    machine: Machine, x: Float[np.ndarray, "n d"], chosen: Int[np.ndarray, " b"]
) -> Float[np.ndarray, "c f"]:
    """What the first layer of weights reads of these rows, at all positions."""
    layer = machine.network.sequence[len(readers(machine.network))]
    grids = read(machine.network, jnp.asarray(x[chosen]))
    taps = layer.taps(grids.shape[1:-1]) if isinstance(layer, Conv) else ()
    seen = np.asarray(read_by(taps, grids))
    return seen.reshape(-1, seen.shape[-1])
