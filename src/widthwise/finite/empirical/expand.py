"""Products with the tangent kernel, and Taylor expansions: no kernel is ever formed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped

from widthwise.finite.empirical.rowwise import Function


def tangent_product(
    function: Function,
    parameters: PyTree,
    x1: Shaped[Array, "n ..."],
    x2: Shaped[Array, "m ..."],
    vector: Float[Array, "m k"],
) -> Float[Array, "n k"]:
    """J(x1) J(x2)^T vector, without any Jacobian: one backward and one forward pass.

    >>> tangent_product(lambda w, x: x @ w, jnp.ones((3, 1)), jnp.eye(3), jnp.eye(3),
    ...                 jnp.ones((3, 1))).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    _, pull = jax.vjp(lambda p: function(p, x2), parameters)
    return jax.jvp(lambda p: function(p, x1), (parameters,), pull(vector))[1]


def taylor_expand(function: Function, parameters: PyTree, degree: int = 1) -> Function:
    """The function's Taylor polynomial in its parameters; degree 1 is the linearised network.

    >>> square = taylor_expand(lambda w, x: w**2 * x, jnp.array(2.0), degree=2)
    >>> float(square(jnp.array(3.0), jnp.array(5.0)))
    45.0
    """
    if degree < 0:
        raise ValueError(f"degree is {degree}: give 0 or more.")

    def polynomial(moved, x):
        change = jax.tree.map(jnp.subtract, moved, parameters)

        def along(t):
            return function(jax.tree.map(lambda p, c: p + t * c, parameters, change), x)

        zero = jnp.zeros((), jax.tree.leaves(parameters)[0].dtype)
        total, derivative, factorial = along(zero), along, 1.0
        for order in range(1, degree + 1):
            derivative = _derivative(derivative)
            factorial *= order
            total = total + derivative(zero) / factorial
        return total

    return polynomial


def _derivative(curve):
    return lambda t: jax.jvp(curve, (t,), (jnp.ones_like(t),))[1]
