"""What is known of the positions of one input: which of them are there, and how they are linked."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.network.taps import Taps, along


class Context(eqx.Module):
    """Of one input; moments hold it with the inputs as a leading axis.

    `present` is 1 where a position is there and 0 where it only fills the grid; None where all are.
    `links[i, j]` says how much node j takes from node i of a graph; None where there is no graph.
    """

    present: Float[Array, "*s"] | None = None
    links: Float[Array, "p p"] | None = None

    def slid(self, taps: tuple[Taps, ...]) -> "Context":
        """Behind a filter: an output is there if the position at the middle of its filter is; of a
        transposed filter, if any that it reads is."""
        present = self.present
        if present is None:
            return self
        for axis, own in enumerate(taps):
            if own.dilation > 1:
                present = jnp.minimum(own.slide(present, (axis,)), 1.0)
                continue
            first, count = (own.taps - 1) // 2, own.outputs(present.shape[axis])
            read = first + own.stride * np.arange(count)
            present = jnp.take(own.padded(present, axis), read, axis=axis)
        return Context(present, self.links)

    def multiplied(self, matrices: tuple[np.ndarray | None, ...]) -> "Context":
        """Behind matrices over positions: an output is there if any that it reads is."""
        if self.present is None:
            return self
        reads = tuple(None if matrix is None else matrix != 0 for matrix in matrices)
        return Context(jnp.minimum(along(self.present, reads), 1.0), self.links)

    def reshaped(self, shape: tuple[int, ...]) -> "Context":
        """As many positions on another grid."""
        present = self.present
        return Context(None if present is None else present.reshape(shape), self.links)

    def joined(self, other: "Context") -> "Context":
        """Of two signals that are added: a position is there if it is in one of them."""
        return Context(
            _either(jnp.maximum, self.present, other.present),
            _either(lambda one, _: one, self.links, other.links),
        )


def _either(function, one, other):
    if one is None or other is None:
        return other if one is None else one
    return function(one, other)


class Known(eqx.Module):
    """One input's features together with what is known of its positions."""

    values: Float[Array, "*s c"]
    context: Context

    def through(self, layer: Any, weights: Any) -> "Known | Array":
        """Through a layer, which is handed zeros where no position is."""
        found = layer.apply_known(weights, self.present(), self.context)
        after = layer.after(self.context)
        if isinstance(found, Known):  # a layer that reads more of the context
            return Known(found.values, found.context.joined(after))
        return found if after is None else Known(found, after)

    def present(self) -> Float[Array, "*s c"]:
        """The features, zero where no position is."""
        there = self.context.present
        return self.values if there is None else jnp.where(there[..., None] > 0, self.values, 0.0)


def run(layer: Any, weights: Any, x: Any) -> Any:
    """One example through a layer, with or without a context."""
    return x.through(layer, weights) if isinstance(x, Known) else layer.apply(weights, x)


def values_of(x: Any) -> Array:
    """Features only."""
    return x.present() if isinstance(x, Known) else x


def softmax(scores: Float[Array, "... p"], there: Float[Array, "... p"] | None):
    """Over the positions that are there."""
    return jax.nn.softmax(scores, axis=-1, where=None if there is None else there > 0)
