"""Weights of a linear convolutional network, drawn from its posterior one by one."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from widthwise.finite.deep_linear.filters import Filter


def drawn_weights(
    filters: Sequence[Filter],
    matrices: Sequence[Float[np.ndarray, "_ _"]],
    x: Float[np.ndarray, "n j c"],
    y: Float[np.ndarray, " n"],
    noise: float,
    rng: np.random.Generator,
) -> list[Float[np.ndarray, "..."]]:
    """Of the hidden layers, from the data on: each (M, C', C), over its standard deviation.

    >>> taps = np.eye(3)[:, None]
    >>> filters = Filter(np.ones((1, 3, 3)), 4, 0.1), Filter(taps, 1, 0.1)
    >>> (found,) = drawn_weights(
    ...     filters, [np.eye(3)], np.ones((2, 3, 1)), np.ones(2), 0.1, np.random.default_rng(0)
    ... )
    >>> found.shape
    (1, 1, 4)

    Args:
        filters: of the network, as `filters_of` has them.
        matrices: a draw of the posterior of its chain, from the output down.
        x, y: training rows, and their targets.
        noise: variance of the noise on the targets.

    Given its matrix, how the output reads a hidden layer is the matrix's root, turned in the space
    of channels by any rotation, for none of which data or prior have a preference. Given how the
    output reads it and the layer below, weights between them are normal ones that meet a linear
    condition; and so are the first layer's, which the targets tell of up to noise.
    """
    *hidden, _ = filters
    read = _turned(matrices[0], hidden[-1].channels, rng)  # (i, k), of the last hidden layer
    found = []
    for (layer, below), matrix in zip(itertools.pairwise(hidden[::-1]), matrices[1:], strict=True):
        after = _turned(matrix, below.channels, rng)
        design = _design(layer, read)  # (j, M k)
        weights = rng.standard_normal((design.shape[1], below.channels))
        weights += np.linalg.pinv(design) @ (after - design @ weights)
        found.append(weights.reshape(len(layer.taps), -1, below.channels).swapaxes(1, 2))
        read = after
    first = hidden[0]
    design = np.einsum("njc,jw->ncw", x, _design(first, read)).reshape(len(x), -1)  # (n, c M k)
    weights = rng.standard_normal(design.shape[1])
    apart = y - design @ weights - np.sqrt(noise) * rng.standard_normal(len(y))
    weights += design.T @ np.linalg.solve(design @ design.T + noise * np.eye(len(y)), apart)
    found.append(weights.reshape(x.shape[2], len(first.taps), -1).swapaxes(0, 1))
    return found[::-1]


def _turned(matrix: np.ndarray, channels: int, rng: np.random.Generator) -> np.ndarray:
    """A root (i, channels) of channels times a matrix, all of them alike."""
    values, vectors = np.linalg.eigh(matrix)
    rank = min(channels, len(values))
    root = vectors[:, -rank:] * np.sqrt(np.maximum(channels * values[-rank:], 0.0))
    # signs of the triangle's diagonal, without which the rotation would not be uniform
    rotation, triangle = np.linalg.qr(rng.standard_normal((channels, rank)))
    return root @ (rotation * np.sign(np.diagonal(triangle))).T


def _design(layer: Filter, read: np.ndarray) -> np.ndarray:
    """(j, M k): what a layer's normal numbers are multiplied with, where positions and channels
    behind it are read as `read` (i, k) says."""
    found = np.sqrt(layer.variance) * np.einsum("mij,ik->jmk", layer.taps, read)
    return found.reshape(len(found), -1)
