"""What single weights, or several that share cotangents, add to the kernel of two blocks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from widthwise.finite.empirical.contraction import contracted, weighed
from widthwise.finite.empirical.rules import Layout
from widthwise.finite.empirical.way import EXACT

LEFT = {"all": "kspo", "each": "kspo", "mean": "kspo"}
RIGHT = {"all": "mlsqo", "each": "mksqo", "mean": "mksqo"}
RESULT = {"all": "mkl", "each": "mk", "mean": "m"}


class Jacobians(eqx.Module):
    """One weight's Jacobian, (n, k, parameters)."""

    jacobian: Any
    weight: int = eqx.field(static=True)

    def meet(self, other: "Jacobians", weights, rates, outputs):
        """(n, m, ...)"""
        own = weighed(self.jacobian, weights[self.weight], rates[self.weight])
        return contracted(own, other.jacobian, outputs)


class Factors(eqx.Module):
    """Of weights that share cotangents: their inputs and these, never multiplied out.

    The share of two rows is (inputs . inputs) (cotangents . cotangents), summed over pairs of
    positions; inputs are (n, shared, positions, near), cotangents (n, k, shared, positions, far).
    """

    inputs: tuple[Any, ...]
    cotangents: Any
    weights: tuple[int, ...] = eqx.field(static=True)

    def meet(self, other: "Factors", weights, rates, outputs):
        """(n, m, ...)"""
        left = [a * jnp.asarray(rates[w], a.dtype).reshape(())
                for a, w in zip(self.inputs, self.weights, strict=True)]  # fmt: skip
        n_outputs, shared, positions = self.cotangents.shape[1:4]

        def rows(a, g):
            gram = sum(jnp.einsum("...spi,msqi->...mspq", x, y, precision=EXACT)
                       for x, y in zip(a, other.inputs, strict=True))  # fmt: skip
            return self._weigh(gram, g, other.cotangents, outputs)

        if shared * positions == 1:
            found = rows(left, self.cotangents)
        else:  # row by row, for pairs of positions of all pairs of rows would not fit
            found = jax.lax.map(lambda row: rows(*row), (left, self.cotangents))
        return found / n_outputs if outputs == "mean" else found

    def _weigh(self, gram, left, right, outputs):
        many = "n" if left.ndim == 5 else ""
        spec = f"{many}mspq,{many}{LEFT[outputs]},{RIGHT[outputs]}->{many}{RESULT[outputs]}"
        return jnp.einsum(spec, gram, left, right, optimize="optimal", precision=EXACT)


def cheaper_as_factors(
    layout: Layout, near: int, outputs: str, k: int, rows: int, pairs: int
) -> bool:
    """Whether products of inputs and of cotangents cost less than the Jacobian, formed row by row
    and multiplied."""
    shared, positions, far = layout.sizes
    kept = k * k if outputs == "all" else k
    jacobian = rows * k * shared * positions * near * far + pairs * kept * shared * near * far
    meeting = min(kept * positions * (far + 1), k * positions * far + kept * far)
    return pairs * shared * positions * (positions * near + meeting) < jacobian
