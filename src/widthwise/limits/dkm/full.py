"""The objective of a deep kernel machine on all rows, and the Gram matrices that are best by it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from widthwise.limits.dkm.layers import GramLayer, covariance, gram_layers, of_gram, shares
from widthwise.limits.dkm.minimise import Minimum, minimise
from widthwise.limits.noise import negative_evidence
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import Moments
from widthwise.scaling import AbstractScaling
from widthwise.solve import NotSolvable, Spectrum, float64

JITTERS = (1e-10, 1e-8, 1e-6)  # relative to the mean diagonal of a prior covariance
RANK = 1e-12  # eigenvalues of the first covariance over the largest, below which they are rounding


class Fixed(NamedTuple):
    """All that the objective reads and nothing chooses.

    `own` is of the layers' weights (see `shares`), `first` the prior covariance of the first
    hidden layer and `root` one of its roots; `nus` has a number for each hidden layer; `jitter` is
    added to prior covariances, relative to their mean diagonals.
    """

    own: Any
    first: Moments
    root: Float[np.ndarray, "n r"]
    nus: tuple[float, ...]
    y: Float[np.ndarray, "n k"]
    noise: float
    jitter: float = 0.0


class Passage(NamedTuple):
    """What the layers make of the free triangles; arrays of JAX, or of NumPy once they are best.

    Of each hidden layer whose Gram matrix is free: a root R (n, r) of its prior covariance, the
    whitened T (r, r), and R T, a root of the Gram matrix; None of others. `output` (n, n) is the
    readout's covariance.
    """

    roots: tuple[Any, ...]
    whitened: tuple[Any, ...]
    grams: tuple[Any, ...]
    output: Any


def posed(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    scaling: AbstractScaling,
    nus: tuple[float, ...],
    noise: float,
) -> Fixed:
    """The objective's constants for a network on these rows and targets."""
    with float64():
        own = jax.tree.map(float, shares(network, x.shape[1], scaling))
        first = _of_rows(gram_layers(network)[0], own[0], jnp.asarray(x))
    return Fixed(own, first, first_root(np.asarray(first.xy)), nus, y, noise)


@functools.partial(jax.jit, static_argnums=0)
def _of_rows(layer: GramLayer, own: Any, x: Float[Array, "n d"]) -> Moments:
    return covariance(layer, own, Moments.of(x))


def first_root(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n r"]:
    """R with R R^T = matrix and orthogonal columns, one for each eigenvalue that is not rounding.

    >>> first_root(np.ones((3, 3))).shape
    (3, 1)

    Inputs of d columns have a covariance of rank d, however many rows there are.
    """
    values, vectors = Spectrum.of(matrix)
    kept = values > RANK * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])


def whiten(free: Float[Array, "r r"], nu: Any) -> Float[Array, "r r"]:
    """T, lower triangular with a positive diagonal: I where `free` is zero.

    In these units nu KL(T) = |free|^2 / 2 to second order, whatever nu is.
    """
    diagonal = jnp.exp(jnp.diagonal(free) / jnp.sqrt(2 * nu))
    return jnp.tril(free, -1) / jnp.sqrt(nu) + jnp.diag(diagonal)


def divergence(free: Float[Array, "r r"], nu: Any) -> Float[Array, ""]:
    """nu KL(N(0, G) | N(0, K)) of G = R T T^T R^T and K = R R^T, with all its digits near zero."""
    logs = jnp.diagonal(free) / jnp.sqrt(2 * nu)
    across = jnp.sum(jnp.tril(free, -1) ** 2) / 2
    return across + nu * jnp.sum(jnp.expm1(2 * logs) / 2 - logs)


def passage(layers: tuple[GramLayer, ...], fixed: Fixed, free: Any) -> Passage:
    """Through all layers, whitening each by the prior covariance that those before leave it."""
    roots, whitened, grams = [], [], []
    moments, gram = fixed.first, None
    for number, layer in enumerate(layers[:-1]):
        if number:
            moments = covariance(layer, fixed.own[number], moments)
        before, gram, root, turned = gram, None, None, None
        if free[number] is not None:
            root = _root(layer, fixed, number, moments, before)
            turned = whiten(free[number], fixed.nus[number])
            gram = root @ turned
            moments = of_gram(gram @ gram.T)
        roots.append(root)
        whitened.append(turned)
        grams.append(gram)
    output = covariance(layers[-1], fixed.own[-1], moments).xy
    return Passage(tuple(roots), tuple(whitened), tuple(grams), output)


def _root(layer: GramLayer, fixed: Fixed, number: int, prior: Moments, before: Any) -> Any:
    """A root of a layer's prior covariance; `before` is one of the Gram matrix in front of it."""
    if number == 0:
        return fixed.root
    if layer.plain and before is not None:  # whatever its rank
        return jnp.sqrt(fixed.own[number][-1].weight.variance) * before
    jitter = fixed.jitter * jnp.mean(prior.xx)
    return jnp.linalg.cholesky(prior.xy + jitter * jnp.eye(len(prior.xx)))


def misfit(
    output: Float[Array, "n n"], y: Float[Array | np.ndarray, "n k"], noise: Any
) -> Float[Array, ""]:
    """-log p(y) of outputs with this covariance and noise: not a number if they are singular."""
    lower = jnp.linalg.cholesky(output + noise * jnp.eye(len(output)))
    half = jax.scipy.linalg.solve_triangular(lower, y, lower=True)
    return negative_evidence(jnp.sum(half**2), 2 * jnp.sum(jnp.log(jnp.diagonal(lower))), y)


def loss(
    layers: tuple[GramLayer, ...], fixed: Fixed, free: Any
) -> tuple[Float[Array, ""], Passage]:
    """-(log p(y | G^L) - sum of nu KL), which training makes least, and what it is made of.

    Source: yang2023theory, section 4.
    """
    found, kept = passage(layers, fixed, free), zip(free, fixed.nus, strict=True)
    apart = sum(divergence(own, nu) for own, nu in kept if own is not None)
    return misfit(found.output, fixed.y, fixed.noise) + apart, found


evaluated = jax.jit(jax.value_and_grad(loss, argnums=2, has_aux=True), static_argnums=0)


class Optimum(NamedTuple):
    """The Gram matrices that are best, and how they were found."""

    fixed: Fixed
    minimum: Minimum
    passage: Passage

    def divergences(self) -> list[float]:
        """KL(G | K) of each hidden layer, not times nu; 0 where nu is infinite."""
        with float64():
            return [
                0.0 if own is None else float(divergence(jnp.asarray(own), nu) / nu)
                for own, nu in zip(self.minimum.free, self.fixed.nus, strict=True)
            ]

    def conditions(self) -> list[float]:
        """Largest over smallest eigenvalue of each Gram matrix that is free, within its rank."""
        roots = [root for root in self.passage.grams if root is not None]
        sizes = [np.linalg.svd(root, compute_uv=False) for root in roots]
        return [float((size[0] / size[-1]) ** 2) for size in sizes]


def at_prior(layers: tuple[GramLayer, ...], fixed: Fixed) -> Any:
    """Free triangles of zeros, where G = K; None where nu is infinite."""
    sizes = [fixed.root.shape[1]]
    for layer, before in zip(layers[1:-1], fixed.nus, strict=False):
        sizes.append(sizes[-1] if layer.plain and np.isfinite(before) else len(fixed.y))
    return tuple(
        np.zeros((size, size)) if np.isfinite(nu) else None
        for size, nu in zip(sizes, fixed.nus, strict=True)
    )


def best_grams(
    layers: tuple[GramLayer, ...], fixed: Fixed, *, tolerance: float, start: Any = None
) -> Optimum:
    """The Gram matrices of least loss, by L-BFGS from those of the prior, or from `start`.

    Jitter is added only where a prior covariance is not positive definite without, and as little as
    does. Raises NotSolvable, naming the layer, where a millionth of the diagonal is not enough.
    """
    free = at_prior(layers, fixed) if start is None else start
    # XLA has threads of its own, and LAPACK's would wait for them
    with float64(), threadpool_limits(1, "blas"):
        found = _least(layers, fixed, free, tolerance)
        for jitter in JITTERS:
            if found.residual <= tolerance or not found.broken:
                break
            fixed = fixed._replace(jitter=jitter)
            found = _least(layers, fixed, found.free, tolerance)
        best: Passage = jax.tree.map(np.asarray, evaluated(layers, fixed, found.free)[0][1])
    if not np.isfinite(found.value):
        raise NotSolvable(_singular(layers, fixed, best))
    return Optimum(fixed, found, best)


def _least(layers: tuple[GramLayer, ...], fixed: Fixed, start: Any, tolerance: float) -> Minimum:
    def bare(free):
        (value, _), gradient = evaluated(layers, fixed, free)
        return value, gradient

    return minimise(bare, start, tolerance=tolerance)


def _singular(layers: tuple[GramLayer, ...], fixed: Fixed, at: Passage) -> str:
    """Which layer's prior covariance has no factor, in a sentence."""
    for number, (layer, root) in enumerate(zip(layers, at.roots, strict=False), start=1):
        if root is not None and not np.isfinite(root).all():
            return (
                f"The Gram matrix of hidden layer {number}, {layer.layers[-1]!r}, is singular, "
                f"with a jitter of {fixed.jitter:g} of its diagonal too: remove rows that nearly "
                "coincide."
            )
    return (
        f"The outputs' covariance is singular beside a noise of {float(fixed.noise):g}: give "
        "Posterior a larger noise."
    )
