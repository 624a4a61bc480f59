"""The tangent kernel by products with vectors: back through one row, forward through the others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from widthwise.finite.empirical.case import Case, Function, Method, scaled


def products(case: Case) -> Method:
    """For each row of x2 and each output a backward pass, then a forward pass over the rows of x1.

    No Jacobian is held, but those of one row of x2.
    """

    @jax.jit
    def features(leaves, rates, x):
        return x

    @jax.jit
    def tile(leaves, rates, left, right):
        _, push = jax.linearize(
            lambda leaves: jax.vmap(lambda x: case.one(leaves, x))(left), leaves
        )

        def columns(row):
            out, pull = jax.vjp(lambda leaves: case.one(leaves, row), leaves)
            (found,) = jax.vmap(pull)(jnp.eye(len(out), dtype=out.dtype))
            found = [scaled(rates, i, part, 1.0) for i, part in enumerate(found)]
            return jax.vmap(push)(found)

        found = jax.lax.map(columns, right)  # (m, l, n, k)
        if case.outputs == "all":
            return found.transpose(2, 0, 3, 1)
        each = jnp.einsum("mknk->nmk", found)
        return each if case.outputs == "each" else each.mean(axis=2)

    return Method("products", features, tile)


def tangent_product(
    function: Function,
    parameters: PyTree,
    x1: Float[Array, "n ..."],
    x2: Float[Array, "m ..."],
    vector: Float[Array, "m k"],
) -> Float[Array, "n k"]:
    """J(x1) J(x2)^T vector, without any Jacobian: one backward and one forward pass.

    >>> tangent_product(lambda w, x: x @ w, jnp.ones((3, 1)), jnp.eye(3), jnp.eye(3),
    ...                 jnp.ones((3, 1))).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    _, pull = jax.vjp(lambda p: function(p, x2), parameters)
    return jax.jvp(lambda p: function(p, x1), (parameters,), pull(vector))[1]
