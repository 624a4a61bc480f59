"""Rows of data of which only some positions are there, and graphs."""

from typing import Any, ClassVar

import jax.numpy as jnp

from widthwise import settings
from widthwise.network.context import Context, Known
from widthwise.network.pool import AbstractPositions, all_pairs, needs_grid
from widthwise.network.reader import AbstractReader
from widthwise.network.signal import Pairs, Signal, Size


class Masked(AbstractReader):
    """Reads sequences or images of various sizes, filled up to one grid: a position is missing
    where all of its features equal one number.

    >>> Unflatten((9, 5)) >> Masked() >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()
    Unflatten(shape=(9, 5)) >> Masked() >> Conv() >> Relu() >> GlobalAveragePool() >> Readout()

    Missing positions count as zeros for their neighbours, are left out of means over positions and
    of softmax attention, and are zeros behind `Flatten()`. Behind a convolution a position is
    missing where the one at the middle of its filter is; behind a pooling, where its whole window
    is.

    Args:
        missing: the number.
    """

    source: ClassVar[str] = "novak2020, section 2"
    missing: float = 0.0

    def __check_init__(self):
        settings.number(self, "missing")

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        return incoming

    def apply(self, weights, x) -> Any:
        there = jnp.any(x != self.missing, axis=-1)
        return Known(x, Context(there.astype(x.dtype)))


class Graph(AbstractReader):
    """Reads graphs: each position is a node, whose last numbers are what every node takes from it.

    >>> Unflatten((9,), channels=14) >> Graph() >> Dense() >> Relu() >> Aggregate()
    Unflatten(shape=(9,), channels=14) >> Graph() >> Dense() >> Relu() >> Aggregate()

    A graph of p nodes with c features is an array (p, c + p): the node's features, then its row of
    the (weighted, directed) adjacency matrix. Graphs of fewer nodes are filled up with zeros, and
    `Masked()` behind `Graph()` leaves those out of the mean over the nodes.
    """

    source: ClassVar[str] = "du2019, section 2"

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming, 1)
        nodes, size = incoming.positions, incoming.size
        if nodes is None or size is None:
            return Signal(None, False, (nodes,), linked=True)
        if size.fixed <= nodes:
            raise ValueError(
                f"{self!r} reads features and links of {nodes} nodes, and {incoming} arrive: give "
                f"more than {nodes} numbers for each node, its links last."
            )
        return Signal(Size(fixed=size.fixed - nodes), False, (nodes,), linked=True)

    def apply(self, weights, x) -> Any:
        nodes = x.shape[0]
        return Known(x[:, :-nodes], Context(links=x[:, -nodes:]))


class Aggregate(AbstractPositions):
    """Each node's features become the sum of its neighbours', times the weights of the links.

    >>> Unflatten((9,), channels=14) >> Graph() >> Aggregate() >> Dense() >> Relu() >> Flatten()
    Unflatten(shape=(9,), channels=14) >> Graph() >> Aggregate() >> Dense() >> Relu() >> Flatten()

    A node is its own neighbour only where its links say so.
    """

    source: ClassVar[str] = "du2019, section 3"

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        if incoming.linked is False:
            raise ValueError(
                f"{self!r} sums over neighbours, and there is no graph: put Graph() first."
            )
        return incoming

    def apply(self, weights, x):
        raise AssertionError("without links: composition refuses it")

    def apply_known(self, weights, x, context):
        assert context.links is not None
        return context.links.T @ x

    def kernel(self, weights, moments):
        return moments.on_grids(lambda grid: all_pairs(grid).aggregated())

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL
