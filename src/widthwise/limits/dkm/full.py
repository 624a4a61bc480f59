"""The objective of a deep kernel machine on all rows, and the Gram matrices that are best by it."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from widthwise.limits.dkm.layers import GramLayer, covariance, gram_layers, of_gram, shares
from widthwise.limits.dkm.minimise import MOST, Minimum, minimise
from widthwise.limits.dkm.triangles import misfit, taught
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import Moments
from widthwise.scaling import AbstractScaling
from widthwise.solve import NotSolvable, Spectrum, float64

JITTERS = (1e-10, 1e-8, 1e-6)  # relative to the mean diagonal of a prior covariance
RANK = 1e-12  # eigenvalues of the first covariance over the largest, below which they are rounding


class Fixed(NamedTuple):
    """All that the objective reads and nothing chooses, of the rows with Gram matrices.

    `own` is of the layers' weights (see `shares`), `first` the prior covariance of the first
    hidden layer and `root` one of its roots; `nus` has a number for each hidden layer; `jitter` is
    added to prior covariances, relative to their mean diagonals.
    """

    own: Any
    first: Moments
    root: Float[np.ndarray, "n r"]
    nus: tuple[float, ...]
    y: Float[np.ndarray, "m k"]
    noise: float
    jitter: float = 0.0


class Passage(NamedTuple):
    """What the layers make of the free triangles; arrays of JAX, or of NumPy once they are best.

    Of each hidden layer whose Gram matrix is free: a root R (n, r) of its prior covariance, the
    whitened T (r, r), and R T, a root of the Gram matrix. Others have None, but R where it is known
    whatever its rank is. `output` (n, n) is the readout's covariance.
    """

    roots: tuple[Any, ...]
    whitened: tuple[Any, ...]
    grams: tuple[Any, ...]
    output: Any


def posed(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m k"],
    *,
    scaling: AbstractScaling,
    nus: tuple[float, ...],
    noise: float,
) -> Fixed:
    """The objective's constants for a network on these rows, and the targets of all rows."""
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


def _unit(nu: Any) -> Any:
    """What triangles are measured by: nu itself, but not where it is small, where the likelihood
    decides how far they reach, and nothing would at nu = 0."""
    return jnp.maximum(nu, 1.0)


def whiten(free: Float[Array, "r r"], nu: Any) -> Float[Array, "r r"]:
    """T, lower triangular with a positive diagonal: I where `free` is zero.

    In these units nu KL(T) = |free|^2 / 2 to second order, whatever nu is from 1 on.
    """
    diagonal = jnp.exp(jnp.diagonal(free) / jnp.sqrt(2 * _unit(nu)))
    return jnp.tril(free, -1) / jnp.sqrt(_unit(nu)) + jnp.diag(diagonal)


def relative_entropy(free: Float[Array, "r r"], nu: Any) -> Float[Array, ""]:
    """KL(N(0, G) | N(0, K)) of G = R T T^T R^T and K = R R^T, with all its digits near zero."""
    logs = jnp.diagonal(free) / jnp.sqrt(2 * _unit(nu))
    across = jnp.sum(jnp.tril(free, -1) ** 2) / (2 * _unit(nu))
    return across + jnp.sum(jnp.expm1(2 * logs) / 2 - logs)


def divergence(free: Float[Array, "r r"], nu: Any) -> Float[Array, ""]:
    """nu KL(N(0, G) | N(0, K))."""
    return nu * relative_entropy(free, nu)


def divergences(free: Any, nus: tuple[Any, ...]) -> Any:
    """Their sum over hidden layers."""
    kept = zip(free, nus, strict=True)
    return sum(divergence(own, nu) for own, nu in kept if own is not None)


def passage(layers: tuple[GramLayer, ...], fixed: Fixed, free: Any) -> Passage:
    """Through all layers, whitening each by the prior covariance that those before leave it."""
    roots, whitened, grams = [], [], []
    moments, before = fixed.first, None
    for number, layer in enumerate(layers[:-1]):
        if number:
            moments = covariance(layer, fixed.own[number], moments)
        root, own = known_root(layer, fixed, number, before), None
        if free[number] is None:
            before = root
        else:
            own = whiten(free[number], fixed.nus[number])
            if root is None:
                jitter = fixed.jitter * jnp.mean(moments.xx)
                root, before, gram = taught(moments.xy + jitter * jnp.eye(len(moments.xx)), own)
            else:
                before = root @ own
                gram = before @ before.T
            moments = of_gram(gram)
        roots.append(root)
        whitened.append(own)
        grams.append(None if own is None else before)
    output = covariance(layers[-1], fixed.own[-1], moments).xy
    return Passage(tuple(roots), tuple(whitened), tuple(grams), output)


def known_root(layer: GramLayer, fixed: Fixed, number: int, before: Any) -> Any:
    """A root of a layer's prior covariance that needs no factor, whatever the rank; `before` is one
    of the Gram matrix in front of it."""
    if number == 0:
        return fixed.root
    if layer.plain and before is not None:
        return jnp.sqrt(fixed.own[number][-1].weight.variance) * before
    return None


def loss(
    layers: tuple[GramLayer, ...], fixed: Fixed, free: Any
) -> tuple[Float[Array, ""], Passage]:
    """-(log p(y | G^L) - sum of nu KL), which training makes least, and what it is made of.

    Source: yang2023theory, section 4.
    """
    found = passage(layers, fixed, free)
    return misfit(found.output, fixed.y, fixed.noise) + divergences(free, fixed.nus), found


evaluated = jax.jit(jax.value_and_grad(loss, argnums=2, has_aux=True), static_argnums=0)


class Objective(NamedTuple):
    """What is made least: from layers, constants and triangles to `loss` with its gradient; and
    what to say where the outputs' covariance has no factor."""

    evaluate: Callable[[tuple[GramLayer, ...], Fixed, Any], tuple[Any, Any]]
    singular: str


ON_ALL_ROWS = Objective(evaluated, "give Posterior a larger noise")


class Optimum(NamedTuple):
    """The Gram matrices that are best, and how they were found."""

    fixed: Fixed
    minimum: Minimum
    passage: Passage

    def divergences(self) -> list[float]:
        """KL(G | K) of each hidden layer, not times nu; 0 where nu is infinite."""
        with float64():
            return [
                0.0 if own is None else float(relative_entropy(jnp.asarray(own), nu))
                for own, nu in zip(self.minimum.free, self.fixed.nus, strict=True)
            ]

    def conditions(self) -> list[float]:
        """Largest over smallest eigenvalue of each Gram matrix that is free, within its rank."""
        roots = [root for root in self.passage.grams if root is not None]
        sizes = [np.linalg.svd(root, compute_uv=False) for root in roots]
        return [float((size[0] / size[-1]) ** 2) for size in sizes]


def at_prior(layers: tuple[GramLayer, ...], fixed: Fixed) -> Any:
    """Free triangles of zeros, where G = K; None where nu is infinite."""
    found, size = [], None  # of the last root, None where none is known
    for number, (layer, nu) in enumerate(zip(layers[:-1], fixed.nus, strict=True)):
        known = fixed.root.shape[1] if number == 0 else size if layer.plain else None
        own, free = len(fixed.root) if known is None else known, bool(np.isfinite(nu))
        found.append(np.zeros((own, own)) if free else None)
        size = own if free else known
    return tuple(found)


def restarted(layers: tuple[GramLayer, ...], at: "Optimum", fixed: Fixed) -> Any:
    """The triangles under other nus at which T is what it is at an optimum; zero where it has
    none."""

    def moved(new, own, nu, was):
        if new is None or own is None:
            return new
        return own * math.sqrt(max(nu, 1.0) / max(was, 1.0))

    found = zip(at_prior(layers, fixed), at.minimum.free, fixed.nus, at.fixed.nus, strict=True)
    return tuple(moved(*each) for each in found)


def best_grams(
    layers: tuple[GramLayer, ...],
    fixed: Fixed,
    *,
    tolerance: float,
    start: Any = None,
    most: int = MOST,
    objective: Objective = ON_ALL_ROWS,
) -> Optimum:
    """The Gram matrices of least loss, by L-BFGS from those of the prior, or from `start`.

    Jitter is added only where a prior covariance is not positive definite without, and as little as
    does. Raises NotSolvable, naming the layer, where a millionth of the diagonal is not enough.
    """

    def least(fixed: Fixed, free: Any) -> Minimum:
        def bare(free):
            (value, _), gradient = objective.evaluate(layers, fixed, free)
            return value, gradient

        return minimise(bare, free, tolerance=tolerance, most=most)

    free = at_prior(layers, fixed) if start is None else start
    # XLA has threads of its own, and LAPACK's would wait for them
    with float64(), threadpool_limits(1, "blas"):
        found = least(fixed, free)
        for jitter in JITTERS:
            if found.residual <= tolerance or not found.broken:
                break
            fixed = fixed._replace(jitter=jitter)
            found = least(fixed, found.free)
        best: Passage = jax.tree.map(
            np.asarray, objective.evaluate(layers, fixed, found.free)[0][1]
        )
    if not np.isfinite(found.value):
        raise NotSolvable(_singular(layers, fixed, best, objective))
    return Optimum(fixed, found, best)


def _singular(
    layers: tuple[GramLayer, ...], fixed: Fixed, at: Passage, objective: Objective
) -> str:
    """Which layer's prior covariance has no factor, in a sentence."""
    for number, (layer, root) in enumerate(zip(layers, at.roots, strict=False), start=1):
        if root is not None and not np.isfinite(root).all():
            return (
                f"The Gram matrix of hidden layer {number}, {layer.layers[-1]!r}, is singular, "
                f"with a jitter of {fixed.jitter:g} of its diagonal too: remove rows that nearly "
                "coincide."
            )
    return (
        f"The outputs' covariance is singular beside a noise of {float(fixed.noise):g}: "
        f"{objective.singular}."
    )
