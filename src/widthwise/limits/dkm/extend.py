"""New points in a trained deep kernel machine: their Gram matrices follow from those that are."""

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


class Extension(NamedTuple):
    """The readout's covariance of new rows with the training rows and among themselves, with that
    of the features behind each layer of the network. `least` is the smallest variance that a
    layer's prior leaves a new row beside the training rows, over the largest."""

    cross: Float[Array, "m n"]
    among: Float[Array, "m m"]
    features: tuple[Float[Array, "m m"], ...]
    least: tuple[Float[Array, ""], ...]


@functools.partial(jax.jit, static_argnums=0)
def extend(layers: tuple[GramLayer, ...], known: Known, x: Float[Array, "m d"]) -> Extension:
    """Carries new rows through all layers.

    Beside K = R R^T and G = R T T^T R^T of the training rows, new ones have B = K_new R^-T, cross
    Gram matrix B T T^T R^T, and B T T^T B^T + K_new,new - B B^T among themselves. By the chain rule
    of the KL divergence that is the optimum of both sets of rows together: new rows without targets
    move nothing.
    """
    cross, among = Moments.of(x, known.x), Moments.of(x)
    features, least, turned = [], [], None
    for number, layer in enumerate(layers):
        own = known.own[number]
        cross, behind = covariance(layer, own, cross), passed(layer, own, among)
        among = covariance_of(behind)
        if number < len(layers) - 1 and known.whitened[number] is not None:
            root, t = known.roots[number], known.whitened[number]
            along = _along(layer, known, number, cross, turned)
            turned, gram = along @ t, root @ t
            spare = cross.xx - jnp.sum(along**2, axis=1)
            least.append(jnp.min(spare) / jnp.max(cross.xx))
            variances = jnp.maximum(spare, 0.0) + jnp.sum(turned**2, axis=1)
            cross = _gaussian(variances, turned @ gram.T, jnp.sum(gram**2, axis=1))
            left = among.xy - along @ along.T + turned @ turned.T
            among = _gaussian(variances, exact_diagonal(left, variances, None), None)
        else:
            turned = None
        inner: list[Any] = [part.mixed() for part in behind[:-1]]
        features += [*(part.xy for part in inner), among.xy]
    return Extension(cross.xy, among.xy, tuple(features), tuple(least))


def _along(layer: GramLayer, known: Known, number: int, cross: Moments, turned):
    """B = K_new R^-T; `turned` is B T of the layer before, None where there is none."""
    root = known.roots[number]
    if number == 0:  # orthogonal columns, fewer than rows
        return cross.xy @ root / jnp.sum(root**2, axis=0)
    if layer.plain and turned is not None:
        return jnp.sqrt(known.own[number][-1].weight.variance) * turned
    return jax.scipy.linalg.solve_triangular(root, cross.xy.T, lower=True).T


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
