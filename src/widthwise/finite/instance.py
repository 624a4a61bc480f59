"""A network at one finite width: drawn and applied as its scaling says."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from widthwise.network.build import is_weight, slot_of, specify
from widthwise.network.context import run, values_of
from widthwise.network.layer import AbstractLayer
from widthwise.network.names import layer_names
from widthwise.network.weight import Weight
from widthwise.scaling import AbstractScaling


class Numbers(eqx.Module):
    """What the scaling says of one tensor at this width."""

    shape: tuple[int, ...]
    multiplier: float
    std: float
    rate: float
    gradient_scale: float  # n^d, read by entrywise optimisers
    norm_scale: float  # takes a gradient's norm to width-free coordinates


class FiniteNetwork(eqx.Module):
    """One network at one width; parameters are passed in, a tree like `numbers`.

    >>> net = FiniteNetwork(Dense() >> Relu() >> Readout(), 64, 5, 3, NTK())
    >>> net.apply(net.draw(jax.random.key(0)), jnp.ones((2, 5), "float32")).shape
    (2, 3)

    Args:
        network: layers that end in `Readout()`.
        width: features of `Dense()`.
        n_inputs, n_outputs: what the data has; for grids of positions (extents ..., features).
        scaling: drives initial variances, multipliers and step sizes.
        entrywise: whether the optimiser that will train it is entrywise (Adam).
    """

    network: AbstractLayer
    width: int
    n_inputs: int | tuple[int, ...]
    n_outputs: int
    scaling: AbstractScaling
    entrywise: bool = False

    def __check_init__(self):
        if self.width < 1 or not math.isfinite(self.width) or self.width != int(self.width):
            raise ValueError(f"width is {self.width}: a finite width is a positive whole number.")

    @property
    def numbers(self) -> PyTree[Numbers]:
        specs = specify(self.network, self.n_inputs, self.n_outputs)
        return jax.tree.map(self._numbers, specs, is_leaf=is_weight)

    def _numbers(self, weight: Weight) -> Numbers:
        slot = slot_of(weight, self.scaling, self.entrywise)
        multiplier, std, rate = (float(power.at(self.width)) for power in slot)
        d = self.scaling.exponents(weight.role, self.entrywise).d
        shape = weight.shape(self.width)
        norm = self.width ** (slot.rate.exponent / 2)
        return Numbers(shape, multiplier, std, rate, float(self.width**d), float(norm))

    def map(self, function, *trees: Any) -> Any:
        """function(numbers, leaf, ...) over the tensors."""
        return jax.tree.map(function, self.numbers, *trees, is_leaf=_is_numbers)

    def draw(self, key: PRNGKeyArray, dtype: str = "float32") -> PyTree[Float[Array, "..."]]:
        """Initial parameters."""
        leaves, tree = jax.tree.flatten(self.numbers, is_leaf=_is_numbers)
        keys = jax.random.split(key, len(leaves))
        drawn = [
            jnp.asarray(one.std, dtype) * jax.random.normal(k, one.shape, dtype)
            for one, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(tree, drawn)

    def apply(
        self, parameters: PyTree, x: Float[Array, "n *s d"]
    ) -> Float[Array, "n {self.n_outputs}"]:
        """Outputs for rows of inputs."""
        weights = self.effective(parameters)
        return jax.vmap(lambda row: self.network.apply(weights, row))(x)

    def effective(self, parameters: PyTree) -> PyTree:
        """The tensors as layers read them: multipliers applied."""
        return self.map(lambda one, w: jnp.asarray(one.multiplier, w.dtype) * w, parameters)

    def features(
        self, parameters: PyTree, x: Float[Array, "n d"]
    ) -> dict[str, Float[Array, "n k"]]:
        """The features after each logged layer, by the layer's name (see network/names.py)."""
        weights = self.effective(parameters)
        layers, own = self.network.sequence, self.network.in_sequence(weights)
        names, found = dict(layer_names(self.network)), {}
        for index, (layer, tensors) in enumerate(zip(layers, own, strict=True)):
            x = jax.vmap(lambda row, f=layer, w=tensors: run(f, w, row))(x)
            if index in names:
                found[names[index]] = jax.vmap(jnp.ravel)(jax.vmap(values_of)(x))
        return found


def _is_numbers(node) -> bool:
    return isinstance(node, Numbers)
