"""What is refused before anything runs, and what is said of it."""

from collections.abc import Mapping
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from widthwise.finite.empirical.rowwise import Rowwise


def check_choice(name: str, value, choices) -> None:
    """Raises ValueError for a value that is none of a Literal's."""
    if value not in get_args(choices):
        names = ", ".join(map(repr, get_args(choices)))
        raise ValueError(f"{name} is {value!r}: give one of {names}.")


def checked_block(block) -> int:
    """Rows held at once, a positive whole number."""
    if not isinstance(block, int | np.integer) or isinstance(block, bool) or block < 1:
        raise ValueError(f"block is {block!r}: give a positive whole number of rows.")
    return int(block)


def checked_rows(name: str, x) -> Array:
    """Rows as an array of JAX."""
    if not isinstance(x, jax.Array | np.ndarray):
        raise ValueError(f"{name} is of type {type(x).__name__}: give an array of rows.")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name} has the shape {x.shape}: give at least one row.")
    if not jnp.issubdtype(x.dtype, jnp.number) and x.dtype != bool:
        raise ValueError(f"{name} holds {x.dtype}: give an array of numbers.")
    return jnp.asarray(x)


def check_alike(x1, x2) -> None:
    """Raises ValueError for rows of two kinds."""
    if x1.shape[1:] != x2.shape[1:] or x1.dtype != x2.dtype:
        raise ValueError(
            f"Rows of x1 are {x1.dtype}{list(x1.shape[1:])} and rows of x2 "
            f"{x2.dtype}{list(x2.shape[1:])}: give rows of one shape and type."
        )


def check_weights(function: Rowwise, weights, rates) -> None:
    """Raises ValueError for parameters without derivatives, or rates that do not fit."""
    if not weights:
        raise ValueError("The parameters hold no floating-point array: there is nothing to move.")
    for name, weight, rate in zip(function.names(), weights, rates, strict=True):
        if jnp.iscomplexobj(weight):
            raise ValueError(f"The parameter {name} is complex: give its two parts apart.")
        try:
            fits = np.broadcast_shapes(rate.shape, weight.shape) == weight.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"The rate of {name} has the shape {rate.shape} and the parameter "
                f"{weight.shape}: give one number, or one for each entry."
            )


def n_outputs_of(function: Rowwise, weights, rest, x) -> int:
    """Outputs of a row; raises ValueError unless the function returns (rows, outputs)."""
    two = jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
    found = jax.eval_shape(function, weights, rest, two)
    leaves = jax.tree.leaves(found)
    real = len(leaves) == 1 and jnp.issubdtype(leaves[0].dtype, jnp.floating)
    shapes = [leaf.shape for leaf in leaves]
    if not real or len(shapes[0]) != 2 or shapes[0][0] != 2 or shapes[0][1] == 0:
        raise ValueError(
            f"The function returned {found} for 2 rows: let it return one array of real outputs "
            "of shape (rows, outputs)."
        )
    return shapes[0][1]


def check_finite(kernel: np.ndarray, inputs: Mapping[str, Array]) -> None:
    """Raises ValueError for a kernel that is no matrix of numbers, naming the input at fault.

    Inputs are looked at only then: a function may know what to do with NaN.
    """
    if np.isfinite(kernel).all():
        return
    for name, x in inputs.items():
        if jnp.issubdtype(x.dtype, jnp.inexact) and jnp.isnan(x).any():
            raise ValueError(f"{name} holds NaN, and so does the kernel: leave out or mend these.")
    raise ValueError(
        "The kernel is not finite: look at the function's derivatives at these rows, or use "
        "float64."
    )
