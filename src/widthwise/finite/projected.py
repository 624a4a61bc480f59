"""Finite networks whose gradients are projected: their random directions and initial weights.

They are the siblings of the pi-limit: with Z_i a row of the directions Omega, its expectations
over Z are here means over neurons.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from widthwise.finite.instance import FiniteNetwork
from widthwise.network.build import slot_of, specify
from widthwise.network.dense import Affine
from widthwise.network.projected import ProjectedStart
from widthwise.network.stack import Stack, of_stack, stack_of


class Directions(NamedTuple):
    """Omega of every hidden layer, its rows standard Gaussian."""

    layers: tuple[Float[Array, "n r"], ...]


def draw_directions(net: FiniteNetwork, rank: int, key, dtype: str) -> Directions:
    """One draw of all directions."""
    hidden = len(stack_of(net.network).between)
    keys = jax.random.split(key, hidden)
    return Directions(tuple(jax.random.normal(k, (net.width, rank), dtype) for k in keys))


def initial_parameters(
    net: FiniteNetwork, start: ProjectedStart, directions: Directions, dtype: str
) -> PyTree:
    """The parameters that initial weights in the span of the directions have at this width."""
    stack = stack_of(net.network)
    specs = specify(net.network, net.n_inputs, net.n_outputs)
    omegas, cast = directions.layers, lambda x: jnp.asarray(x, dtype)
    found = []
    for number, spec in enumerate(of_stack(stack, specs)):
        bias = cast(start.biases[number])
        if number == 0:
            weight = cast(start.first) @ omegas[0].T
        else:
            a, b = map(cast, start.operators[number - 1])
            nonlinearity = stack.between[number - 1]
            read = omegas[number - 1] @ b.T
            weight = (read if nonlinearity is None else nonlinearity(read)) @ a
        if number < len(omegas):
            bias = omegas[number] @ bias
            weight = weight if number == 0 else weight @ omegas[number].T
        found.append(Affine(_at_width(net, spec.weight, weight, number > 0),
                            _at_width(net, spec.bias, bias, False)))  # fmt: skip
    return _in_chain(stack, specs, found)


def _at_width(net: FiniteNetwork, spec: Any, weight, averages: bool):
    """In the coordinates of the scaling; a sum over neurons is a mean in width-free ones."""
    exponent = slot_of(spec, net.scaling, net.entrywise).multiplier.exponent
    return weight * net.width ** (-exponent - (1.0 if averages else 0.0))


def _in_chain(stack: Stack, specs, affine) -> PyTree:
    found = list(specs)
    for position, weights in zip(stack.affine, affine, strict=True):
        found[position] = weights
    return tuple(found)


def project(net: FiniteNetwork, directions: Directions | None) -> optax.GradientTransformation:
    """Projects gradients of hidden layers onto the span of their directions.

    The spans' orthonormal bases are its state, `directions` are read by `init` alone. A layer no
    wider than its directions are many keeps its gradient.
    """
    stack = stack_of(net.network)

    def init(params) -> Any:
        del params
        assert directions is not None
        return tuple(
            None if omega.shape[0] <= omega.shape[1] else jnp.linalg.qr(omega)[0]
            for omega in directions.layers
        )

    def update(updates, state, params=None):
        del params
        affine = list(of_stack(stack, updates))
        for number, basis in enumerate(state):
            if basis is not None:
                affine[number] = jax.tree.map(lambda g, q=basis: (g @ q) @ q.T, affine[number])
        return _in_chain(stack, updates, affine), state

    return optax.GradientTransformation(init, update)
