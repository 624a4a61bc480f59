"""Self-attention: positions that read each other by how alike they are."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.context import Context, softmax
from widthwise.network.conv import grid_of
from widthwise.network.grid import AbstractPairGrid
from widthwise.network.layer import AbstractLayer, no_closed_form
from widthwise.network.moments import AbstractMoments, Tangent
from widthwise.network.places import (
    Decay,
    check_decay,
    check_places,
    correlating,
    correlations,
)
from widthwise.network.pool import all_pairs, needs_grid
from widthwise.network.signal import Pairs, Signal, Size
from widthwise.network.weight import Weight
from widthwise.scaling import Number

Mechanism = Literal["softmax", "identity", "relu", "abs"]
NO_BIAS = Tangent(0.0, 0.0, 0.0)
MECHANISMS = {
    "softmax": softmax,
    "identity": lambda scores, there: scores,
    "relu": lambda scores, there: jnp.maximum(scores, 0.0),
    "abs": lambda scores, there: jnp.abs(scores),
}


class Tensors(eqx.Module):
    """Of an attention layer: specifications, arrays or tangents, as the case is; embeddings of
    positions are None where there are none."""

    score: object  # queries and keys, which share it
    value: object
    out: object
    bias: object
    score_positions: object
    value_positions: object


class SelfAttention(AbstractLayer):
    """Global self-attention with scores divided by the number of key features, which then do not
    fluctuate at infinite width; queries and keys share their weights.

    >>> Unflatten() >> Conv() >> SelfAttention() >> Relu() >> GlobalAveragePool() >> Readout()
    Unflatten() >> Conv() >> SelfAttention() >> Relu() >> GlobalAveragePool() >> Readout()

    Args:
        mechanism: "softmax", "identity", "relu" or "abs" of the scores, each over the other
            positions.
        score_variance: entries of the weights of queries and keys start with variance
            score_variance / fan_in, so that scores are score_variance times the covariance.
        value_variance, out_variance: of the weights of values and of the output.
        position_variance: of an embedding of the positions, added to what is read, one for scores
            and one for values; both are trained.
        position_decay: embeddings of positions at squared distance d have the correlation
            exp(-position_decay d); None makes all of them independent; a function, as for
            `PositionEmbedding`.
        values_know_positions: False embeds positions in the scores only.
        bias_variance, bias_multiplier, lr_multiplier: as for `Dense`.
    """

    source: ClassVar[str] = "hron2020, sections 3.2 and 4"
    mechanism: Mechanism = eqx.field(default="softmax", static=True)
    score_variance: Number = 1.0
    value_variance: Number = 1.0
    out_variance: Number = 1.0
    position_variance: float = 0.0
    position_decay: Decay | None = eqx.field(default=None, static=True)
    values_know_positions: bool = eqx.field(default=True, static=True)
    bias_variance: Number = 0.0
    bias_multiplier: Number = 0.1
    lr_multiplier: Number = 1.0

    def __check_init__(self):
        settings.one_of(self, "mechanism", tuple(MECHANISMS))
        for name in ("score_variance", "value_variance", "out_variance"):
            settings.number(self, name, above=0)
        for name in ("position_variance", "bias_variance", "bias_multiplier", "lr_multiplier"):
            settings.number(self, name, low=0)
        check_decay(self, "position_decay")

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        check_places(self.position_decay, incoming)
        return incoming.remade(Size(times=1), True)

    def weights(self, incoming: Signal) -> Tensors:
        if incoming.size is None or incoming.positions is None:
            raise ValueError(f"The features and positions that arrive at {self!r} are not known.")
        wide, rate, count = Size(times=1), self.lr_multiplier, incoming.positions

        def matrix(fan_in, variance):
            return Weight(fan_in, wide, variance, lr_multiplier=rate)

        def positions(variance, wanted):
            if not (wanted and self.position_variance):
                return None
            gain = (self.position_variance * variance) ** 0.5
            # an embedding and the weights that read it, as one tensor: both are trained
            return Weight(None, wide, gain**2, gain, 2 * rate, copies=(count,))

        return Tensors(
            matrix(incoming.size, self.score_variance),
            matrix(incoming.size, self.value_variance),
            matrix(wide, self.out_variance),
            Weight(None, wide, self.bias_variance, self.bias_multiplier, rate),
            positions(self.score_variance, True),
            positions(self.value_variance, self.values_know_positions),
        )

    def apply(self, weights, x):
        return self.apply_known(weights, x, Context())

    def apply_known(self, weights, x, context):
        there = None if context.present is None else context.present.ravel()
        rows = x.reshape(-1, x.shape[-1])
        root = jnp.asarray(correlating(x.shape[:-1], self.position_decay), x.dtype)
        keys, values = rows @ weights.score, rows @ weights.value
        if weights.score_positions is not None:
            keys = keys + root @ weights.score_positions
        if weights.value_positions is not None:
            values = values + root @ weights.value_positions
        if there is not None:
            values = there[:, None] * values
        scores = MECHANISMS[self.mechanism](keys @ keys.T / keys.shape[1], there)
        return (scores @ values @ weights.out + weights.bias).reshape(*x.shape[:-1], -1)

    def kernel(self, weights, moments):
        grid = pairs_of(moments)
        alike, places = correlations(grid.shape, self.position_decay), weights.score_positions
        added = 0.0 if places is None else places.variance * alike

        def scores(own, there):
            keys = None if there is None else there[:, None]
            return MECHANISMS[self.mechanism](weights.score.variance * own + added, keys)

        x, y = grid.scored(scores)
        values = pairs_of(grid.affine(weights.value, NO_BIAS))
        if weights.value_positions is not None:
            values = pairs_of(values.at_positions(alike, weights.value_positions))
        return values.attended(x, y).affine(weights.out, weights.bias)

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL

    def fresh(self) -> bool:
        return True


class Heads(eqx.Module):
    """Of attention with many heads: specifications, arrays or tangents, as the case is."""

    query: object
    key: object
    value: object
    out: object
    bias: object


class MultiHeadAttention(AbstractLayer):
    """Global self-attention with scores divided by the root of the number of key features, which
    fluctuate from head to head at any width; as many heads as the network is wide.

    >>> Unflatten() >> Conv() >> MultiHeadAttention() >> Relu() >> Flatten() >> Readout()
    Unflatten() >> Conv() >> MultiHeadAttention() >> Relu() >> Flatten() >> Readout()

    The scores have a closed form as they are only. Others are refused at width inf but for
    `MonteCarlo(network)`; there, many heads of `head_size` key features are Hron et al.'s limit up
    to a part of order 1 / head_size, by which the scores of a head are not Gaussian.

    Args:
        mechanism: "identity", or "softmax", "relu" or "abs" of the scores, each over the other
            positions.
        head_size: key features of a head; with identity the limit does not depend on it. A head
            has one value.
        query_variance, key_variance, value_variance, out_variance: entries of these weights start
            with variance ... / fan_in.
        bias_variance, bias_multiplier, lr_multiplier: as for `Dense`.
    """

    source: ClassVar[str] = "hron2020, section 3.1"
    mechanism: Mechanism = eqx.field(default="identity", static=True)
    head_size: int = eqx.field(default=1, static=True)
    query_variance: Number = 1.0
    key_variance: Number = 1.0
    value_variance: Number = 1.0
    out_variance: Number = 1.0
    bias_variance: Number = 0.0
    bias_multiplier: Number = 0.1
    lr_multiplier: Number = 1.0

    def __check_init__(self):
        settings.one_of(self, "mechanism", tuple(MECHANISMS))
        settings.whole(self, "head_size")
        for name in ("query_variance", "key_variance", "value_variance", "out_variance"):
            settings.number(self, name, above=0)
        for name in ("bias_variance", "bias_multiplier", "lr_multiplier"):
            settings.number(self, name, low=0)

    def signal(self, incoming: Signal) -> Signal:
        needs_grid(self, incoming)
        return incoming.remade(Size(times=1), True)

    def weights(self, incoming: Signal) -> Heads:
        if incoming.size is None:
            raise ValueError(f"The number of features that arrive at {self!r} is not known.")
        read, wide, rate = incoming.size, Size(times=1), self.lr_multiplier
        heads = wide.by(self.head_size)
        return Heads(
            Weight(read, heads, self.query_variance, lr_multiplier=rate),
            Weight(read, heads, self.key_variance, lr_multiplier=rate),
            Weight(read, wide, self.value_variance, lr_multiplier=rate),
            Weight(wide, wide, self.out_variance, lr_multiplier=rate),
            Weight(None, wide, self.bias_variance, self.bias_multiplier, rate),
        )

    def apply(self, weights, x):
        return self.apply_known(weights, x, Context())

    def apply_known(self, weights, x, context):
        there = None if context.present is None else context.present.ravel()
        rows = x.reshape(-1, x.shape[-1])
        keys, queries = (
            (rows @ matrix).reshape(len(rows), -1, self.head_size)
            for matrix in (weights.key, weights.query)
        )
        values = rows @ weights.value
        if self.mechanism == "identity":  # no scores of pairs need be held
            read = jnp.einsum("jhd,jh->hd", keys, values)
            heads = jnp.einsum("ihd,hd->ih", queries, read) / self.head_size**0.5
        else:
            scores = jnp.einsum("ihd,jhd->hij", queries, keys) / self.head_size**0.5
            heads = jnp.einsum("hij,jh->ih", MECHANISMS[self.mechanism](scores, there), values)
        return (heads @ weights.out + weights.bias).reshape(*x.shape[:-1], -1)

    def refusal(self) -> str | None:
        if self.mechanism == "identity":
            return None
        chosen = f"(mechanism={self.mechanism!r})"
        return no_closed_form(f"MultiHeadAttention{chosen}", f"SelfAttention{chosen}")

    def kernel(self, weights, moments):
        if (sentence := self.refusal()) is not None:
            raise ValueError(sentence)
        found = pairs_of(moments).gated(weights.query, weights.key, weights.value)
        return found.affine(weights.out, weights.bias)

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL

    def fresh(self) -> bool:
        return True


def pairs_of(moments: AbstractMoments) -> AbstractPairGrid:
    """Moments of all pairs of positions, their features all alike."""
    return all_pairs(grid_of(moments))
