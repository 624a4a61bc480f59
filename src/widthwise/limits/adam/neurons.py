"""Neurons drawn from the laws of a lazy network, at the training rows or at any others.

A neuron's fields are standard normal numbers times matrices (see images.py), and these numbers are
drawn again from their seed where they are needed: what a run keeps does not grow with the rows.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.activate import activate
from widthwise.limits.adam.compiled import CHUNK, PAIRS
from widthwise.limits.adam.images import Image, Images
from widthwise.limits.adam.sites import Sites

GROUP = 512  # neurons that are drawn together
CHUNKS = GROUP // CHUNK
FORWARD, BACKWARD = 0, 1  # kinds of fields, in their seeds


class Layer(NamedTuple):
    """Fields of one layer's neurons at some rows; see compiled.py. What nobody reads is empty."""

    dx: Float[np.ndarray, "c r k w"]
    slope: Float[np.ndarray, "c s w"]
    y: Float[np.ndarray, "c t p"]


class Counts(NamedTuple):
    """Groups of neurons that a half has, and outputs of the network."""

    groups: int
    input_groups: int  # whose slopes move the inputs' weights, which are many a neuron
    outputs: int


def shapes(sites: Sites, counts: Counts, rows: int) -> list[tuple[tuple[int, ...], ...]]:
    """Of the arrays of every `Layer`."""
    found, depth = [], len(sites.hidden)
    for number, site in enumerate(sites.hidden):
        behind = (*sites.hidden, sites.readout)[number + 1]
        moving = CHUNKS * (counts.input_groups if number == 0 else counts.groups)
        moving *= site.weight.rate > 0 or site.bias.rate > 0
        # a layer that has its bias alone to move reads features all the same
        read = CHUNKS * counts.groups * (behind.weight.rate > 0 or behind.bias.rate > 0)
        own, sloped = (1, rows) if number + 1 == depth else (rows, 0)
        found.append((
            (moving, own, counts.outputs, CHUNK), (moving, sloped, CHUNK),
            (read, rows, CHUNK + PAIRS - 1),
        ))  # fmt: skip
    return found


def bytes_needed(sites: Sites, counts: Counts, rows: int) -> int:
    """Of a half's neurons."""
    sizes = [np.prod(shape) for layer in shapes(sites, counts, rows) for shape in layer]
    return 4 * int(sum(sizes))


def empty(sites: Sites, counts: Counts, rows: int) -> tuple[Layer, ...]:
    """Room for a half's neurons."""
    return tuple(
        Layer(*(np.empty(shape, np.float32) for shape in layer))
        for layer in shapes(sites, counts, rows)
    )


def fill(
    sites: Sites, images: Images, layers: tuple[Layer, ...], half: int, group: int, at: int = 0
) -> None:
    """Draws one group of a half's neurons into the room's group `at`."""
    own, depth = slice(at * CHUNKS, (at + 1) * CHUNKS), len(layers)
    for number, (site, layer) in enumerate(zip(sites.hidden, layers, strict=True)):
        moves, read = at * CHUNKS < len(layer.dx), at * CHUNKS < len(layer.y)
        if not (moves or read):
            continue
        seed = half, number, group
        h = _field(images.forward[number], (*seed, FORWARD))
        features, slope = activate(site.activation, h)
        if read:
            y = _chunked(features)
            layer.y[own, :, :CHUNK] = y
            layer.y[own, :, CHUNK:] = y[:, :, : PAIRS - 1]
        if moves:
            for k in range(layer.dx.shape[2]):
                dx = _field(images.backward[number], (*seed, BACKWARD, k))
                if number + 1 == depth:
                    layer.dx[own, 0, k] = _chunked(dx[:1])[:, 0]
                else:
                    layer.dx[own, :, k] = _chunked(dx * slope)
            if number + 1 == depth:
                layer.slope[own] = _chunked(slope)


def _chunked(field: Float[np.ndarray, "m g"]) -> Float[np.ndarray, "c m w"]:
    return field.reshape(len(field), CHUNKS, CHUNK).transpose(1, 0, 2)


def _field(image: Image, seed: tuple[int, ...]) -> Float[np.ndarray, "m g"]:
    rng = np.random.default_rng(seed)
    field = image.matrix.T @ rng.standard_normal((len(image.matrix), GROUP), dtype=np.float32)
    if image.spread.any():
        field += image.spread[:, None] * rng.standard_normal(GROUP, dtype=np.float32)
    return field
