"""What an empirical kernel is asked of: a function, the shapes of its arguments, and the ways in
which its kernel may be computed."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Function = Callable[[PyTree, Float[Array, "n ..."]], Float[Array, "n k"]]
Outputs = Literal["mean", "each", "all"]
Shape = jax.ShapeDtypeStruct


class Case(NamedTuple):
    """All that a compiled kernel depends on; hashable where the function is."""

    function: Function
    tree: Any
    leaves: tuple[Shape, ...]
    rates: tuple[Shape, ...] | None
    row: Shape
    outputs: Outputs
    real: Any  # JAX's default real type, which constants inside the function take

    def one(self, leaves: Any, row: Float[Array, "..."]) -> Float[Array, " k"]:
        """The outputs for one row, from parameters laid flat."""
        return self.function(jax.tree.unflatten(self.tree, leaves), row[None])[0]

    def names(self) -> list[str]:
        """The parameters, as paths into their tree."""
        tree = jax.tree.unflatten(self.tree, self.leaves)
        return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


class Method(NamedTuple):
    """A way to the kernel, in two compiled steps.

    features: (leaves, rates, rows) -> what of these rows is held, rows first in every array.
    tile: (leaves, rates, features, features) -> the kernel of two blocks: "mean" (n, m), "each"
    (n, m, k), "all" (n, m, k, k).
    """

    name: str
    features: Callable[..., Any]
    tile: Callable[..., Float[Array, "n m ..."]]


def case_of(
    function: Function, parameters: PyTree, x: Array, outputs: Outputs, rates: PyTree | None
) -> tuple[Case, list[Array], list[Array] | None]:
    """(case, parameters laid flat, rates laid flat).

    Raises ValueError for rates that are no tree like the parameters, for other names of
    `outputs`, and for a function that returns no outputs by rows.
    """
    if outputs not in ("mean", "each", "all"):
        raise ValueError(f"outputs is {outputs!r}: give 'mean', 'each' or 'all'.")
    leaves, tree = jax.tree.flatten(parameters)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    flat = None
    if rates is not None:
        flat = [jnp.asarray(rate) for rate in tree.flatten_up_to(rates)]
    row = Shape(x.shape[1:], x.dtype)
    case = Case(
        function, tree, _shapes(leaves), None if flat is None else _shapes(flat), row, outputs,
        jnp.result_type(float),
    )  # fmt: skip
    return case, leaves, flat


def _shapes(arrays: list[Array]) -> tuple[Shape, ...]:
    return tuple(Shape(array.shape, array.dtype) for array in arrays)


def scaled(rates: Any, index: int, array: Array, power: float = 0.5) -> Array:
    """An array whose last axes are those of a parameter, times a power of its step sizes."""
    return array if rates is None else array * jnp.asarray(rates[index], array.dtype) ** power
