"""Rows and inducing variables through a network, layer by layer."""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from widthwise.limits.dkm.blocks import (
    Blocks,
    affine,
    begun,
    inputs,
    learned,
    mixed,
    pooled,
    read_by,
)
from widthwise.limits.dkm.sites import GLOBAL, POOLS, Free, Machine
from widthwise.network.begin import read
from widthwise.network.conv import Conv
from widthwise.network.dense import Affine, Dense, Readout
from widthwise.network.layer import AbstractLayer, Chain, Identity, Sum
from widthwise.network.pool import GlobalAveragePool


class Passed(NamedTuple):
    """Behind each layer of the network in turn; `least` has for each layer that conditions on
    inducing variables the smallest variance that it left (see `learned`)."""

    behind: tuple[Blocks, ...]
    least: dict[str, Any]


def through(
    machine: Machine, free: Any, spread: Any, x: Float[Array, "b d"], whole: bool = False
) -> Passed:
    """Rows and inducing variables through the network, up to the readout's prior covariances.

    `free` and `spread` are in the network's shape; `whole` asks for covariances among rows, for
    networks of vectors.
    """
    walk, found, at = _Walk(), [], None
    grids = read(machine.network, x)
    for layer, own, one, by in zip(
        machine.network.sequence, machine.own, free, spread, strict=True
    ):
        if at is None:
            at = walk.first(layer, own, one, by, grids, whole)
        else:
            at = walk.layer(layer, own, one, by, at)
        found.append(at)
    assert at is not None
    return Passed(tuple(x for x in found if x is not None), walk.least)


class _Walk:
    """One passage: collects the variances that are left on the way."""

    def __init__(self):
        self.least: dict[str, Any] = {}

    def first(
        self, layer, own: Affine | None, free: Free | None, spread, x, whole: bool
    ) -> Blocks | None:
        """The first layer of weights; nothing is known before."""
        if free is None or own is None:
            return None
        taps = layer.taps(x.shape[1:-1]) if isinstance(layer, Conv) else ()
        seen = read_by(taps, x)
        if inputs(own, free.z).shape[1] <= len(free.z):
            return begun(own, free.z, seen, spread, whole)
        return self._learned(layer, begun(own, free.z, seen, None, whole), spread)

    def layer(self, layer, own, free, spread, at: Blocks) -> Blocks:
        if isinstance(layer, Chain):
            for inner, a, b, c in zip(layer.layers, own, free, spread, strict=True):
                at = self.layer(inner, a, b, c, at)
            return at
        if isinstance(layer, Sum):
            return self._sum(layer, own, free, spread, at)
        if isinstance(layer, Conv):
            prior = mixed(own, layer.taps(at.shape), free.mix, at)
            return self._learned(layer, prior, spread)
        if isinstance(layer, Dense):
            return self._learned(layer, affine(own, at, layer), spread)
        if isinstance(layer, Readout):
            return affine(own, at, layer)
        if isinstance(layer, POOLS):
            return self._pooled(layer, at)
        return at.each(lambda moments: layer.kernel(None, moments))

    def _sum(self, layer: Sum, own, free, spread, at: Blocks) -> Blocks:
        """Branches that are uncorrelated; inducing variables are the sums of theirs."""
        skips = sum(isinstance(branch, Identity) for branch in layer.branches)
        outs = [at.each(lambda moments: moments.times(float(skips)))] if skips else []
        outs += [
            self.layer(branch, a, b, c, at)
            for branch, a, b, c in zip(layer.branches, own, free, spread, strict=True)
            if not isinstance(branch, Identity)
        ]
        return functools.reduce(_added, outs)

    def _learned(self, layer, prior: Blocks, spread) -> Blocks:
        if spread is None:
            return prior
        found, least = learned(prior, spread)
        self._tell(layer, least)
        return found

    def _tell(self, layer: AbstractLayer, least: Float[Array, ""]) -> None:
        self.least[f"step {len(self.least) + 1}, {layer!r}"] = least

    def _pooled(self, layer, at: Blocks) -> Blocks:
        if isinstance(layer, GLOBAL):
            mean = isinstance(layer, GlobalAveragePool)
            matrices = tuple(np.full((1, s), 1 / s if mean else 1.0) for s in at.shape)
        else:
            matrices = layer.matrices(at.shape)
        found, least = pooled(matrices, at, isinstance(layer, GLOBAL))
        self._tell(layer, least)
        return found


def _added(one: Blocks, other: Blocks) -> Blocks:
    among = None
    if one.among is not None and other.among is not None:
        among = one.among.add(other.among)
    ii, ti = one.ii.add(other.ii), one.ti.add(other.ti)
    return Blocks(ii, ti, among, one.shape)  # type: ignore[arg-type]
