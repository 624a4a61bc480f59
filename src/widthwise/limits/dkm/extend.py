"""New rows beside those of a deep kernel machine, whose Gram matrices follow from the latter's."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widthwise.limits.dkm.layers import GramLayer, covariance, covariance_of, passed
from widthwise.network.moments import Moments, exact_diagonal

NEGATIVE = 1e-6  # of the largest variance: below zero by less is rounding


class Known(NamedTuple):
    """What new rows are related to: rows (n, d), and of each hidden layer what `Passage` says; in
    NumPy's arrays, which can be pickled, or traced by JAX."""

    own: Any
    x: Any
    roots: tuple[Any, ...]
    whitened: tuple[Any, ...]


class Beside(NamedTuple):
    """New rows behind a hidden layer: their features' moments with the known ones.

    Of the known rows' K = R R^T and G = R T T^T R^T, `along` is B = K_new R^-T and `turned` is B T,
    None where R is not known; `spare` what the prior leaves of the variances, None where G is K.
    """

    moments: Moments
    along: Any
    turned: Any
    spare: Any


def beside(
    layers: tuple[GramLayer, ...], known: Known, number: int, prior: Moments, before: Any
) -> Beside:
    """New rows behind a layer, where by its prior they have the moments `prior` with the known.

    Their cross Gram matrix is B T T^T R^T, and their variances are those of B T T^T B^T + K_new,new
    - B B^T. By the chain rule of the KL divergence that is the optimum of both sets of rows
    together: new rows without targets move nothing. `before` is B T of the layer before.
    """
    if number == len(layers) - 1 or known.roots[number] is None:
        return Beside(prior, None, None, None)
    root, t = known.roots[number], known.whitened[number]
    along = _along(layers[number], known, number, prior, before)
    if t is None:
        return Beside(prior, along, along, None)
    turned, gram = along @ t, root @ t
    spare = prior.xx - jnp.sum(along**2, axis=1)
    variances = jnp.maximum(spare, 0.0) + jnp.sum(turned**2, axis=1)
    moments = _gaussian(variances, turned @ gram.T, jnp.sum(gram**2, axis=1))
    return Beside(moments, along, turned, spare)


def outputs_beside(layers: tuple[GramLayer, ...], known: Known, x: Float[Array, "m d"]) -> Moments:
    """The readout's prior covariance of new rows with the known ones, and their variances."""
    moments, before = Moments.of(x, known.x), None
    for number, layer in enumerate(layers):
        prior = covariance(layer, known.own[number], moments)
        moments, _, before, _ = beside(layers, known, number, prior, before)
    return moments


class Extension(NamedTuple):
    """The readout's covariance of new rows with the known rows and among themselves, with that of
    the features behind each layer of the network. `least` is the smallest variance that a layer's
    prior leaves a new row beside the known rows, over the largest."""

    cross: Float[Array, "m n"]
    among: Float[Array, "m m"]
    features: tuple[Float[Array, "m m"], ...]
    least: tuple[Float[Array, ""], ...]


@functools.partial(jax.jit, static_argnums=0)
def extend(layers: tuple[GramLayer, ...], known: Known, x: Float[Array, "m d"]) -> Extension:
    """Carries new rows through all layers, as `beside` does, with what they are to each other."""
    cross, among = Moments.of(x, known.x), Moments.of(x)
    features, least, before = [], [], None
    for number, layer in enumerate(layers):
        own = known.own[number]
        prior, behind = covariance(layer, own, cross), passed(layer, own, among)
        among = covariance_of(behind)
        cross, along, before, spare = beside(layers, known, number, prior, before)
        if spare is not None:
            least.append(jnp.min(spare) / jnp.max(prior.xx))
            left = among.xy - along @ along.T + before @ before.T
            among = _gaussian(cross.xx, exact_diagonal(left, cross.xx, None), None)
        inner: list[Any] = [part.mixed() for part in behind[:-1]]
        features += [*(part.xy for part in inner), among.xy]
    return Extension(cross.xy, among.xy, tuple(features), tuple(least))


def _along(layer: GramLayer, known: Known, number: int, prior: Moments, before):
    """B = K_new R^-T."""
    root = known.roots[number]
    if number == 0:  # orthogonal columns, fewer than rows
        return prior.xy @ root / jnp.sum(root**2, axis=0)
    if layer.plain and before is not None:
        return jnp.sqrt(known.own[number][-1].weight.variance) * before
    return jax.scipy.linalg.solve_triangular(root, prior.xy.T, lower=True).T


def _gaussian(xx, xy, yy) -> Moments:
    """Gaussian features with mean zero."""
    y = None if yy is None else jnp.zeros_like(yy)
    return Moments(xx, xy, yy, jnp.zeros_like(xy), jnp.zeros_like(xx), y)


def check_variances(layers: tuple[GramLayer, ...], known: Known, found: Extension) -> None:
    """Raises ValueError, naming the layer, where new rows have a variance below zero."""
    free = [i for i, t in enumerate(known.whitened) if t is not None]
    for number, least in zip(free, found.least, strict=True):
        if not float(least) > -NEGATIVE:
            raise ValueError(
                f"The variance of a new row is {float(least):.1g} of the largest in hidden layer "
                f"{number + 1}, {layers[number].layers[-1]!r}, whose Gram matrix is nearly "
                "singular: give a larger nu or noise, or remove rows that nearly coincide."
            )
