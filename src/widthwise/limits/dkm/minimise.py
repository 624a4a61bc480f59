"""L-BFGS on lower triangles, until the gradient is small relative to where it started."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
from jaxtyping import Float

HISTORY = 30  # pairs of steps and gradients that L-BFGS remembers
MOST = 3000  # iterations

Evaluate = Callable[[Any], tuple[Any, Any]]  # triangles to value and gradient


class Minimum(NamedTuple):
    """Where L-BFGS stopped.

    `first` is the value at zero, infinite if it is no number; `residual` the gradient's norm over
    that at zero; `broken` counts evaluations that were no numbers.
    """

    free: Any
    value: float
    first: float
    iterations: int
    residual: float
    broken: int


def minimise(evaluate: Evaluate, start: Any, *, tolerance: float, most: int = MOST) -> Minimum:
    """The minimum of a function of lower triangles, from `start` on.

    >>> found = minimise(lambda x: (np.sum((x[0] - 1) ** 2), (2 * (x[0] - 1),)),
    ...                  (np.zeros((2, 2)),), tolerance=1e-8)
    >>> found.free[0].round(6).tolist()
    [[1.0, 0.0], [1.0, 1.0]]

    Args:
        evaluate: from square arrays, of which the lower triangles are read, to value and gradient.
        start: a tuple of them; None where there is nothing to choose.
        tolerance: of `residual`.
        most: iterations, past which it ends where it is.
    """
    triangles = _Triangles(start)
    search = _Search(evaluate, triangles)
    at = triangles.pack(start)
    search(np.zeros_like(at))
    search.settle()
    first, reference = search.value, search.norm
    if search.broken or reference == 0:
        return Minimum(start, first, first, 0, np.inf if search.broken else 0.0, search.broken)
    search(at)
    search.settle()

    def accepted(now):  # the last one evaluated
        search.settle()
        if search.norm <= tolerance * reference:
            raise StopIteration

    found = scipy.optimize.minimize(
        search, at, jac=True, method="L-BFGS-B", callback=accepted,
        options={"maxcor": HISTORY, "maxiter": most, "maxfun": 2 * most, "ftol": 0, "gtol": 0},
    )  # fmt: skip
    return Minimum(
        triangles.unpack(search.at), search.value, first, int(found.nit), search.norm / reference,
        search.broken,
    )  # fmt: skip


class _Triangles:
    """Between tuples of square arrays and one vector of their lower triangles."""

    def __init__(self, like: Any):
        leaves, self._tree = jax.tree.flatten(like)
        self._sizes = [len(leaf) for leaf in leaves]
        self._indices = [np.tril_indices(size) for size in self._sizes]

    def pack(self, arrays: Any) -> Float[np.ndarray, " n"]:
        leaves = jax.tree.leaves(arrays)
        parts = [np.asarray(x)[i] for x, i in zip(leaves, self._indices, strict=True)]
        return np.concatenate([np.empty(0), *parts])

    def unpack(self, vector: Float[np.ndarray, " n"]) -> Any:
        leaves = [np.zeros((size, size)) for size in self._sizes]
        ends = np.cumsum([len(rows) for rows, _ in self._indices])[:-1]
        for leaf, index, part in zip(leaves, self._indices, np.split(vector, ends), strict=False):
            leaf[index] = part
        return jax.tree.unflatten(self._tree, leaves)


class _Search:
    """A function that remembers where it was last a number, and where the search has settled."""

    def __init__(self, evaluate: Evaluate, triangles: _Triangles):
        self._evaluate, self._triangles = evaluate, triangles
        self._latest = self._settled = (np.empty(0), np.inf, np.empty(0))
        self.broken = 0

    def settle(self) -> None:
        self._settled = self._latest

    @property
    def at(self) -> Float[np.ndarray, " n"]:
        return self._settled[0]

    @property
    def value(self) -> float:
        return self._settled[1]

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self._settled[2]))

    def __call__(self, at: Float[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " n"]]:
        if np.isfinite(self._latest[1]) and np.array_equal(at, self._latest[0]):
            return self._latest[1:]
        value, gradient = self._evaluate(self._triangles.unpack(at))
        value, gradient = float(value), self._triangles.pack(gradient)
        if np.isfinite(value) and np.isfinite(gradient).all():
            self._latest = (at.copy(), value, gradient)
            return value, gradient
        # Out of the positive definite matrices: as much worse as makes the line search come back
        # by about ten times.
        self.broken += 1
        before, least, slope = self._settled
        fall = abs(float(slope @ (at - before))) if len(before) else 0.0
        return least + 4 * fall, np.zeros_like(at)
