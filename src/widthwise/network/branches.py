"""Branches that read one input, joined side by side or multiplied."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from widthwise.network.joining import (
    alike,
    check_independent,
    run_each,
    same_shape,
)
from widthwise.network.layer import AbstractBranches, AbstractLayer, Identity, branched
from widthwise.network.moments import AbstractMoments, Mixture
from widthwise.network.signal import OUTPUTS, Signal, Size


class Shares(eqx.Module):
    """How large a part of the features each branch has; it has no tensors of its own."""

    values: tuple[float, ...] = eqx.field(static=True)


class Concatenate(AbstractBranches):
    """The features of all branches side by side.

    >>> Dense() >> Concatenate((Relu() >> Dense(), Erf() >> Dense())) >> Relu() >> Readout()
    Dense() >> Concatenate(branches=(Relu() >> Dense(), Erf() >> Dense())) >> Relu() >> Readout()

    The features of different branches differ in law, and stay apart until a layer with weights
    reads them all: so a nonlinearity may follow.
    """

    source: ClassVar[str] = "yang2019, section 2"
    branches: tuple[AbstractLayer, ...] = eqx.field(
        default=(Identity(), Identity()), converter=branched
    )

    def __check_init__(self):
        self.signal(Signal())

    def signal(self, incoming: Signal) -> Signal:
        leaving = [branch.signal(incoming) for branch in self.branches]
        if any(x.size == OUTPUTS for x in leaving):
            raise ValueError(f"A branch of {self!r} ends in Readout(): a readout stands last.")
        sizes = [x.size for x in leaving if x.size is not None]
        total = None
        if len(sizes) == len(leaving):
            total = Size(sum(x.times for x in sizes), sum(x.fixed for x in sizes))
            if total.grows:
                total = Size(times=total.times)  # what does not grow is lost among what does
        known = [x.gaussian for x in leaving]
        gaussian = False if False in known else (None if None in known else True)
        return Signal(total, gaussian, same_shape(self, leaving), incoming.linked)

    def weights(self, incoming: Signal):
        sizes = [branch.signal(incoming).size for branch in self.branches]
        if any(size is None for size in sizes):
            raise ValueError(f"The number of features that leave {self!r} is not known.")
        counts = [x.times for x in sizes]  # type: ignore[union-attr]
        counts = counts if any(counts) else [x.fixed for x in sizes]  # type: ignore[union-attr]
        shares = Shares(tuple(count / sum(counts) for count in counts))
        return shares, tuple(branch.weights(incoming) for branch in self.branches)

    def apply(self, weights, x):
        return jnp.concatenate(run_each(self.branches, weights[1], x), axis=-1)

    def kernel(self, weights, moments):
        shares, tensors = weights
        found = []
        for branch, own, share in zip(self.branches, tensors, shares.values, strict=True):
            found += _parts(branch.kernel(own, moments), share)
        parts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(part for _, part in found))
        return Mixture(parts, tuple(share for share, _ in found))


def _parts(moments: AbstractMoments, share: float) -> list[tuple]:
    """(share, moments) of each law among the features."""
    if not isinstance(moments, Mixture):
        return [(share, moments)]
    count = len(moments.shares)
    return [
        (share * moments.shares[i], jax.tree.map(lambda leaf, i=i: leaf[i], moments.parts))
        for i in range(count)
    ]


class Product(AbstractBranches):
    """The product of branches, feature by feature, as in gated networks.

    >>> Dense() >> Product((Sigmoid(), Dense())) >> Dense() >> Relu() >> Readout()
    Dense() >> Product(branches=(Sigmoid(), Dense())) >> Dense() >> Relu() >> Readout()

    All but one branch end in fresh weights: they are independent then.
    """

    source: ClassVar[str] = "yang2019, section 2"
    branches: tuple[AbstractLayer, ...] = eqx.field(default=(Identity(),), converter=branched)

    def __check_init__(self):
        check_independent(self, self.branches)
        self.signal(Signal())

    def signal(self, incoming: Signal) -> Signal:
        found = alike(self, [branch.signal(incoming) for branch in self.branches])
        if found.size == OUTPUTS:
            raise ValueError(f"A branch of {self!r} ends in Readout(): a readout stands last.")
        return found.remade(found.size, False)

    def apply(self, weights, x):
        outs = run_each(self.branches, weights, x)
        return math.prod(outs[1:], start=outs[0])

    def kernel(self, weights, moments):
        pairs = zip(self.branches, weights, strict=True)
        first, *rest = [branch.kernel(own, moments) for branch, own in pairs]
        for out in rest:
            first = first.product(out)
        return first

    def fresh(self) -> bool:
        return False
