"""Kernels of a finite network as drawn or trained, block by block."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

Function = Callable[[PyTree, Float[Array, "n ..."]], Float[Array, "n k"]]


def empirical_kernel(
    function: Function,
    parameters: PyTree,
    x1: Float[Array, "n ..."],
    x2: Float[Array, "m ..."] | None = None,
    *,
    which: Literal["ntk", "nngp"] = "ntk",
    outputs: Literal["mean", "each", "all"] = "mean",
    rates: PyTree | None = None,
    block: int = 32,
) -> Float[np.ndarray, "n m ..."]:
    """J(x1) J(x2)^T, or f(x1) f(x2)^T, of any function of parameters and rows.

    >>> def function(w, x):
    ...     return x @ w
    >>> empirical_kernel(function, jnp.ones((3, 2)), jnp.eye(3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    Args:
        function: (parameters, rows) -> outputs, row by row independent.
        x1, x2: rows; without x2, x1 against itself.
        which: tangent kernel, or the product of outputs.
        outputs: "mean" over equal outputs (n, m); "each" equal output (n, m, k); "all" pairs of
            outputs (n, m, k, k).
        rates: per-parameter step sizes, a tree like `parameters`, which weigh the tangent kernel;
            None is one everywhere.
        block: rows whose Jacobian is held at once; memory is 2 * block * k * parameters.
    """
    features = _outputs_of(function) if which == "nngp" else _jacobian_of(function, rates)
    symmetric = x2 is None
    other = x1 if x2 is None else x2
    left_blocks = range(0, len(x1), block)
    rows = []
    for i in left_blocks:
        left = features(parameters, x1[i : i + block])
        row = []
        for j in range(0, len(other), block):
            if symmetric and j < i:
                row.append(_mirrored(rows[j // block][i // block], outputs))
                continue
            right = left if symmetric and i == j else features(parameters, other[j : j + block])
            row.append(np.asarray(_contract(left, right, which, outputs)))
        rows.append(row)
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def _mirrored(tile: np.ndarray, outputs: str) -> np.ndarray:
    swapped = np.swapaxes(tile, 0, 1)
    return np.swapaxes(swapped, 2, 3) if outputs == "all" else swapped


def _outputs_of(function: Function):
    return jax.jit(lambda parameters, x: [function(parameters, x)[:, :, None]])


def _jacobian_of(function: Function, rates: PyTree | None):
    def one(parameters, row):
        return jax.jacrev(lambda p: function(p, row[None])[0])(parameters)

    @jax.jit
    def jacobian(parameters, x):
        found = jax.vmap(one, (None, 0))(parameters, x)
        if rates is not None:
            roots = jax.tree.map(jnp.sqrt, rates)
            found = jax.tree.map(lambda j, root: j * jnp.asarray(root, j.dtype), found, roots)
        return [j.reshape(*j.shape[:2], -1) for j in jax.tree.leaves(found)]

    return jacobian


@jax.jit
def _all_outputs(left, right):
    # Tensor by tensor: the Jacobians are never laid side by side.
    return sum(jnp.einsum("nkp,mlp->nmkl", a, b) for a, b in zip(left, right, strict=True))


@jax.jit
def _each_output(left, right):
    return sum(jnp.einsum("nkp,mkp->nmk", a, b) for a, b in zip(left, right, strict=True))


def _contract(left, right, which: str, outputs: str) -> Any:
    if outputs == "all":
        return _all_outputs(left, right)
    each = _each_output(left, right)
    return each if outputs == "each" else each.mean(axis=2)


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
