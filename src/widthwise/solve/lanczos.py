"""Quadrature by Lanczos: v^T f(A) v for every function f, from products with A alone."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from widthwise.solve.conjugate import Product


class Quadrature(NamedTuple):
    """v^T f(A) v is about sum(weights * f(nodes)), a row for each v."""

    nodes: Float[np.ndarray, "k steps"]
    weights: Float[np.ndarray, "k steps"]

    def of(self, function) -> Float[np.ndarray, " k"]:
        """v^T f(A) v for each v; `function` takes and gives arrays."""
        return np.sum(self.weights * function(self.nodes), axis=1)


def quadrature(product: Product, start: Float[np.ndarray, "n k"], steps: int) -> Quadrature:
    """Gauss quadrature of the spectral measure of each column of `start`.

    >>> found = quadrature(lambda x: np.diag([1.0, 3.0]) @ x, np.ones((2, 1)), 2)
    >>> found.of(np.log).round(12).tolist()
    [1.098612288668]

    Args:
        product: right -> A right, for a symmetric A.
        start: columns; with independent signs for entries, the mean of v^T f(A) v is trace f(A).
        steps: products; polynomials of degree 2 steps - 1 in A are integrated exactly.

    Source: golub2010, chapter 6; ubaru2017, algorithm 1.
    """
    count, columns = start.shape
    steps = min(steps, count)
    size = np.linalg.norm(start, axis=0)
    basis = np.zeros((steps, count, columns))
    diagonal, beside = np.zeros((steps, columns)), np.zeros((steps, columns))
    basis[0] = start / np.where(size > 0, size, 1.0)
    for step in range(steps):
        moved = product(basis[step])
        diagonal[step] = np.sum(basis[step] * moved, axis=0)
        before = basis[: step + 1]
        for _ in range(2):  # all of them, and twice: rounding would bring old directions back
            moved -= np.einsum("snk,sk->nk", before, np.einsum("snk,nk->sk", before, moved))
        length = np.linalg.norm(moved, axis=0)
        # Where nothing is left, what follows has no weight.
        ended = length <= 1e-12 * np.abs(diagonal[: step + 1]).max(axis=0)
        beside[step] = np.where(ended, 0.0, length)
        if step + 1 < steps:
            basis[step + 1] = np.where(ended, 0.0, moved / np.where(ended, 1.0, length))
    nodes, weights = np.zeros((columns, steps)), np.zeros((columns, steps))
    for own in range(columns):
        nodes[own], vectors = scipy.linalg.eigh_tridiagonal(diagonal[:, own], beside[:-1, own])
        weights[own] = size[own] ** 2 * vectors[0] ** 2
        # what only looks like a node, where the space had ended, is none for any function
        nodes[own] = np.where(vectors[0] ** 2 > 1e-30, nodes[own], nodes[own, -1])
    return Quadrature(nodes, weights)
