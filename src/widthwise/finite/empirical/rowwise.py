"""A user's function with its parameters sorted: which move, which ride along, which are fixed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

Function = Callable[[PyTree, Shaped[Array, "n ..."]], Float[Array, "n k"]]


@dataclasses.dataclass(frozen=True)
class Rowwise:
    """The function of (weights, rest, rows); hashable, so that its programs are compiled once.

    >>> function, weights, rest = Rowwise.sort(lambda p, x: x * p["w"], {"w": 2.0, "steps": 3})
    >>> function(weights, rest, jnp.ones((1, 1))).tolist(), len(rest)
    ([[2.0]], 0)

    `weights` are the leaves of floating-point numbers, which derivatives are taken in; `rest` the
    other arrays (counters, keys); what is no array at all is a part of the function.
    """

    function: Function
    tree: Any
    kinds: tuple[str, ...]
    fixed: tuple[Any, ...]

    @staticmethod
    def sort(function: Function, parameters: PyTree) -> tuple["Rowwise", list, list]:
        """The function, its weights and the rest."""
        leaves, tree = jax.tree.flatten(parameters)
        kinds = tuple(map(_kind, leaves))
        found = {kind: [x for x, own in zip(leaves, kinds, strict=True) if own == kind]
                 for kind in ("weight", "rest", "fixed")}  # fmt: skip
        sorted_function = Rowwise(function, tree, kinds, tuple(found["fixed"]))
        return sorted_function, list(map(jnp.asarray, found["weight"])), found["rest"]

    def __call__(self, weights, rest, x):
        parts = {"weight": iter(weights), "rest": iter(rest), "fixed": iter(self.fixed)}
        leaves = [next(parts[kind]) for kind in self.kinds]
        return self.function(jax.tree.unflatten(self.tree, leaves), x)

    def one(self, weights, rest, row):
        """Outputs of one row."""
        return self(weights, rest, row[None])[0]

    def names(self) -> list[str]:
        """Where each weight stands in the parameters."""
        whole = jax.tree.unflatten(self.tree, self.kinds)
        paths = jax.tree_util.tree_flatten_with_path(whole)[0]
        return [jax.tree_util.keystr(path) or "itself" for path, kind in paths if kind == "weight"]

    def sort_rates(self, rates: PyTree) -> list[Array]:
        """The weights' step sizes, from a tree like the parameters."""
        if rates is None:
            return [jnp.ones(()) for kind in self.kinds if kind == "weight"]
        leaves, tree = jax.tree.flatten(rates)
        if tree != self.tree:
            raise ValueError(
                f"rates are {tree} and parameters {self.tree}: give one rate for each parameter, "
                "in a tree of the same form."
            )
        pairs = zip(leaves, self.kinds, strict=True)
        return [jnp.asarray(rate) for rate, kind in pairs if kind == "weight"]


def _kind(leaf) -> str:
    if eqx.is_inexact_array_like(leaf):
        return "weight"
    return "rest" if isinstance(leaf, jax.Array | np.ndarray | np.generic) else "fixed"
