"""A finite network with feature learning switched off: linear in its parameters."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from widthwise.finite.instance import FiniteNetwork, Numbers
from widthwise.network.layer import AbstractLayer


class LinearisedNetwork(eqx.Module):
    """f(x; w0) + (w - w0) . df/dw (x; w0), trained in the change w - w0.

    >>> net = FiniteNetwork(Dense() >> Relu() >> Readout(), 64, 5, 3, NTK())
    >>> linear = LinearisedNetwork(net)
    >>> parameters, x = linear.draw(jax.random.key(0)), jnp.ones((2, 5), "float32")
    >>> bool((linear.apply(parameters, x) == net.apply(parameters[0], x)).all())
    True

    Takes the place of a `FiniteNetwork` in `train`. Its parameters are the pair (w0, w - w0);
    w0 stays as drawn. At infinite width under a lazy scaling every network is this one.
    """

    net: FiniteNetwork

    @property
    def width(self) -> int:
        return self.net.width

    @property
    def network(self) -> AbstractLayer:
        return self.net.network

    @property
    def n_inputs(self) -> int | tuple[int, ...]:
        return self.net.n_inputs

    def map(self, function, *trees: Any) -> Any:
        """As of the network, with step sizes of zero for w0."""
        still = self.net.map(lambda one: dataclasses.replace(one, rate=0.0))
        own = still, self.net.numbers
        return jax.tree.map(function, own, *trees, is_leaf=lambda node: isinstance(node, Numbers))

    def draw(self, key: PRNGKeyArray, dtype: str = "float32") -> tuple[PyTree, PyTree]:
        """Initial parameters, and a change of zero."""
        start = self.net.draw(key, dtype)
        return start, jax.tree.map(jnp.zeros_like, start)

    def apply(self, parameters: tuple[PyTree, PyTree], x: Float[Array, "n *s d"]):
        """Outputs for rows of inputs, (n, k)."""
        start, change = parameters
        start = jax.lax.stop_gradient(start)
        value, moved = jax.jvp(lambda w: self.net.apply(w, x), (start,), (change,))
        return value + moved

    def features(
        self, parameters: tuple[PyTree, PyTree], x: Float[Array, "n d"]
    ) -> dict[str, Float[Array, "n k"]]:
        """Those at the start: they stay."""
        return self.net.features(parameters[0], x)


AnyNetwork = FiniteNetwork | LinearisedNetwork  # what training moves
