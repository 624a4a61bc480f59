"""Kernel matrices of infinitely wide networks, tile by tile, the symmetric half only."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from widthwise.kernels.monte_carlo import (
    KernelEstimates,
    MonteCarlo,
    sampled_diagonal,
    sampled_layers,
    sampled_rows,
    sampled_tile,
)
from widthwise.memory import check_free
from widthwise.network.begin import begin, check_rows, input_signal
from widthwise.network.build import tangents
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import AbstractMoments, Moments
from widthwise.network.signal import Pairs
from widthwise.scaling import NTK, AbstractScaling
from widthwise.solve.precision import float64

TILE = 1024  # rows of a tile
ENTRIES = 2**21  # pairs of positions in a tile: 16 MB each of the dozen arrays that are made of it


class KernelMatrices(NamedTuple):
    """nngp: covariance of the outputs at initialisation. ntk: tangent kernel."""

    nngp: Float[np.ndarray, "n m"]
    ntk: Float[np.ndarray, "n m"]


class KernelDiagonals(NamedTuple):
    """The diagonals of `KernelMatrices` of rows against themselves."""

    nngp: Float[np.ndarray, " n"]
    ntk: Float[np.ndarray, " n"]


class Way(NamedTuple):
    """How kernels come from a network."""

    kind: type  # of the result
    tile_rows: Callable[..., int]  # of a network and the shape of one row
    diagonal_rows: Callable[..., int]
    tile: Callable[..., Any]  # of a network, its tangents and two sides, to the result's fields
    diagonal: Callable[..., Any]
    layers: Callable[..., Any]


def kernel_matrix(
    network: AbstractLayer,
    x1: Num[np.ndarray, "n *s d"],
    x2: Num[np.ndarray, "m *s d"] | None = None,
    *,
    scaling: AbstractScaling | None = None,
    width: float = math.inf,
) -> KernelMatrices | KernelEstimates:
    """The NNGP and tangent kernels of a network, in float64.

    >>> net = Dense() >> Relu() >> Readout()
    >>> kernel_matrix(net, np.eye(3)).ntk.shape
    (3, 3)

    Args:
        network: layers; a network that does not end in `Readout()` gives its last features'.
            `MonteCarlo(network)` gives `KernelEstimates`, with their standard errors.
        x1, x2: rows of inputs, or grids of positions with the features last (images are n, height,
            width, channels); without x2, x1 against itself.
        scaling: `NTK()` unless given; it decides what each layer adds to the tangent kernel.
        width: the width whose constants enter; only the standard parametrization's differ.

    Raises ValueError for inputs without rows and features or not finite, for networks that leave a
    grid of positions or have layers without a rule at infinite width, and MemoryError for matrices
    that do not fit into memory, before anything is computed.
    """
    x1, x2 = checked_sides(x1, x2)
    way = way_of(network)
    rows, columns = len(x1), len(x1 if x2 is None else x2)
    check_memory(rows, columns, len(way.kind._fields))
    for x in (x1, x2):
        if x is not None:
            check_rows(network, x)
    if not width >= 1:
        raise ValueError(f"width is {width}: give a positive number, or inf.")
    _check_vector(network, x1.shape[1:])
    scaling = NTK() if scaling is None else scaling
    found = [np.empty((rows, columns)) for _ in way.kind._fields]
    tile = way.tile_rows(network, x1.shape[1:])
    with float64():
        own = tangents(network, x1.shape[1:], scaling, width)
        for i in range(0, rows, tile):
            for j in range(0 if x2 is not None else i, columns, tile):
                a, b = slice(i, i + tile), slice(j, j + tile)
                same = x2 is None and i == j
                other = None if same else (x1 if x2 is None else x2)[b]
                for whole, part in zip(found, _tile(way, network, own, x1[a], other), strict=True):
                    whole[a, b] = part
                    if x2 is None and i != j:
                        whole[b, a] = part.T
    if not all(np.isfinite(whole).all() for whole in found):
        raise ValueError(
            f"The kernel of {network!r} is not finite on these rows: rescale them, or look for a "
            "function in it that is not finite on all numbers."
        )
    return way.kind(*found)


def kernel_diagonal(
    network: AbstractLayer, x: Num[np.ndarray, "n *s d"], *, scaling: AbstractScaling | None = None
) -> KernelDiagonals:
    """The diagonals of `kernel_matrix(network, x)`, without the rest of the matrices.

    >>> kernel_diagonal(Dense() >> Relu() >> Readout(), np.eye(3)).ntk.shape
    (3,)

    Arguments and errors as for `kernel_matrix`.
    """
    x = checked(x, "x")
    check_rows(network, x)
    way = way_of(network)
    _check_vector(network, x.shape[1:])
    tile = way.diagonal_rows(network, x.shape[1:])
    with float64():
        own = tangents(network, x.shape[1:], NTK() if scaling is None else scaling)
        found = [
            [np.asarray(part)[: len(own_x)] for part in way.diagonal(network, own, _padded(own_x))]
            for own_x in (x[i : i + tile] for i in range(0, len(x), tile))
        ]
        return KernelDiagonals(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


@functools.partial(jax.jit, static_argnums=0)
def _alone(network, own, x):
    def one(row):
        found = _ended(network.kernel(own, begin(network, row[None])))
        return found.xy[0, 0], found.ntk[0, 0]

    return jax.vmap(one)(x)


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


def _tile(way: Way, network, own, x1, x2) -> list[np.ndarray]:
    """One tile, padded to a power of two: a few compiled shapes serve all data."""
    n, m = len(x1), len(x1 if x2 is None else x2)
    found = way.tile(network, own, _padded(x1), None if x2 is None else _padded(x2))
    cut = [np.asarray(kernel)[:n, :m] for kernel in found]
    return [_mirrored(kernel) for kernel in cut] if x2 is None else cut


def _padded(x: np.ndarray) -> jax.Array:
    size = max(8 if x.ndim == 2 else 1, 1 << (len(x) - 1).bit_length())
    # with a real row, so that no rule meets 0 / 0
    return jnp.asarray(np.pad(x, ((0, size - len(x)), *[(0, 0)] * (x.ndim - 1)), mode="edge"))


@functools.partial(jax.jit, static_argnums=0)
def _through(network, own, x1, x2):
    found = _ended(network.kernel(own, begin(network, x1, x2)))
    return found.xy, found.ntk


def _ended(moments: AbstractMoments) -> Moments:
    """What a network leaves."""
    found = moments.mixed()
    assert isinstance(found, Moments)  # _check_vector has seen to it
    return found


def _check_vector(network: AbstractLayer, shape: tuple[int, ...]) -> None:
    if network.signal(input_signal(shape)).shape:
        raise ValueError(
            f"{network!r} leaves a grid of positions: end it in Flatten() or GlobalAveragePool(), "
            "or ask for position_kernels."
        )


def _mirrored(kernel: np.ndarray) -> np.ndarray:
    """Symmetric to the last digit, which rules that treat x and y in turn are not."""
    return np.triu(kernel) + np.triu(kernel, 1).T


def layer_kernels(
    network: AbstractLayer, x: Num[np.ndarray, "n d"], scaling: AbstractScaling | None = None
) -> list[Float[np.ndarray, "n n"]]:
    """The covariance of the features after each layer of a chain, inputs excluded."""
    x = np.asarray(x, dtype=np.float64)
    with float64():
        own = tangents(network, x.shape[1:], NTK() if scaling is None else scaling)
        found = way_of(network).layers(network, own, _padded(x))
        return [np.asarray(kernel)[: len(x), : len(x)] for kernel in found]


@functools.partial(jax.jit, static_argnums=0)
def _each_layer(network, own, x):
    moments, found = begin(network, x), []
    for layer, weights in zip(network.sequence, network.in_sequence(own), strict=True):
        moments = layer.kernel(weights, moments)
        vector = moments.flattened().mixed()
        assert isinstance(vector, Moments)
        found.append(vector.xy)
    return found


def way_of(network: AbstractLayer) -> Way:
    """By rules of its layers, or by sampling; ValueError, in a sentence that names the way out, for
    layers that have no rule."""
    if isinstance(network, MonteCarlo):
        return Way(
            KernelEstimates, sampled_rows, sampled_rows,
            sampled_tile, sampled_diagonal, sampled_layers,
        )  # fmt: skip
    if (sentence := network.refusal()) is not None:
        raise ValueError(sentence)
    return Way(
        KernelMatrices, tile_rows, lambda network, shape: tile_rows(network, shape) ** 2,
        _through, _alone, _each_layer,
    )  # fmt: skip


def checked_sides(x1, x2) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows against rows, or against themselves; ValueError where they do not fit together."""
    x1 = checked(x1, "x1")
    x2 = None if x2 is None else checked(x2, "x2")
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        one, other = (f"{' x '.join(map(str, x.shape[1:]))} columns" for x in (x1, x2))
        raise ValueError(f"x1 has {one} and x2 has {other}: they must agree.")
    return x1, x2


def checked(x, name: str) -> np.ndarray:
    """Rows of real, finite numbers in float64; ValueError or TypeError in a sentence otherwise."""
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{name} holds {x.dtype} entries: give real numbers.")
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {x.shape}: give rows of features, (n, d).")
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {x.shape}: give at least one row and one column.")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has entries that are NaN or infinite: fill or drop them.")
    return x


def check_memory(rows: int, columns: int, matrices: int = 2) -> None:
    """Raises MemoryError for kernel matrices of this size that do not fit into free memory."""
    need = 2 * matrices * 8 * rows * columns  # the kernels, and as much again for a solve
    check_free(need, f"Kernel matrices of {rows} by {columns} rows", "use fewer rows")
