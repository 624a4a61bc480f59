"""Self-attention: positions that read each other by how alike they are."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from widthwise import settings
from widthwise.network.conv import grid_of
from widthwise.network.dense import not_after_readout
from widthwise.network.layer import AbstractLayer, Weight
from widthwise.network.pairs import PairGrid
from widthwise.network.pool import needs_grid
from widthwise.network.signal import Pairs, Signal, Size
from widthwise.scaling import Number

Mechanism = Literal["softmax", "identity", "relu", "abs"]
MECHANISMS = {
    "softmax": lambda scores: jax.nn.softmax(scores, axis=-1),
    "identity": lambda scores: scores,
    "relu": lambda scores: jnp.maximum(scores, 0.0),
    "abs": jnp.abs,
}


class Tensors(eqx.Module):
    """Of an attention layer: specifications, arrays or tangents, as the case is."""

    score: object  # queries and keys, which share it
    value: object
    out: object
    bias: object


class SelfAttention(AbstractLayer):
    """Global self-attention with scores divided by the number of key features, which then do not
    fluctuate at infinite width; queries and keys share their weights.

    >>> Unflatten((4, 4)) >> Conv() >> SelfAttention() >> Relu() >> GlobalAveragePool() >> Readout()
    Unflatten(shape=(4, 4)) >> Conv() >> SelfAttention() >> Relu() >> GlobalAveragePool() >> Readout()

    Args:
        mechanism: "softmax", "identity", "relu" or "abs" of the scores, each over the other
            positions.
        score_variance: entries of the weights of queries and keys start with variance
            score_variance / fan_in, so that scores are score_variance times the covariance.
        value_variance, out_variance: of the weights of values and of the output.
        bias_variance, bias_multiplier, lr_multiplier: as for `Dense`.
    """

    source: ClassVar[str] = "hron2020, section 3.2"
    mechanism: Mechanism = eqx.field(default="softmax", static=True)
    score_variance: Number = 1.0
    value_variance: Number = 1.0
    out_variance: Number = 1.0
    bias_variance: Number = 0.0
    bias_multiplier: Number = 0.1
    lr_multiplier: Number = 1.0

    def __check_init__(self):
        settings.one_of(self, "mechanism", tuple(MECHANISMS))
        for name in ("score_variance", "value_variance", "out_variance"):
            settings.number(self, name, above=0)
        settings.number(self, "bias_variance", low=0)
        settings.number(self, "bias_multiplier", low=0)

    def signal(self, incoming: Signal) -> Signal:
        not_after_readout(self, incoming)
        needs_grid(self, incoming)
        return Signal(Size(times=1), True, incoming.shape)

    def weights(self, incoming: Signal) -> Tensors:
        if incoming.size is None:
            raise ValueError(f"The number of features that arrive at {self!r} is not known.")
        wide, rate = Size(times=1), self.lr_multiplier
        return Tensors(
            Weight(incoming.size, wide, self.score_variance, lr_multiplier=rate),
            Weight(incoming.size, wide, self.value_variance, lr_multiplier=rate),
            Weight(wide, wide, self.out_variance, lr_multiplier=rate),
            Weight(None, wide, self.bias_variance, self.bias_multiplier, rate),
        )

    def apply(self, weights, x):
        rows = x.reshape(-1, x.shape[-1])
        keys = rows @ weights.score
        scores = MECHANISMS[self.mechanism](keys @ keys.T / keys.shape[1])
        out = scores @ (rows @ weights.value) @ weights.out + weights.bias
        return out.reshape(*x.shape[:-1], -1)

    def kernel(self, weights, moments):
        grid = grid_of(moments)
        assert isinstance(grid, PairGrid)

        def scores(own):
            return None if own is None else MECHANISMS[self.mechanism](weights.score.variance * own)

        nothing = jax.tree.map(jnp.zeros_like, weights.bias)
        values = grid.affine(weights.value, nothing)
        return values.attended(scores(grid.own_x), scores(grid.own_y)).affine(
            weights.out, weights.bias
        )

    def needs(self, after: Pairs) -> Pairs:
        return Pairs.ALL

    def fresh(self) -> bool:
        return True
