"""How far Gram matrices are from their priors, and the noise that keeps them from overfitting."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

KEPT = 0.1  # of the Gram matrix that the noise leaves as it is: so few columns make a singular one


def exact_divergence(whitened: Float[Array, "m m"]) -> Float[Array, ""]:
    """KL(N(0, G) | N(0, K)) a feature, of G = R T T^T R^T and K = R R^T: `whitened` is T, lower
    triangular with a positive diagonal.

    >>> float(exact_divergence(jnp.eye(3)))
    0.0
    """
    logs = jnp.log(jnp.diagonal(whitened))
    across = jnp.sum(jnp.tril(whitened, -1) ** 2) / 2
    return across + jnp.sum(jnp.expm1(2 * logs) / 2 - logs)


def quadratic_divergence(whitened: Float[Array, "m m"]) -> Float[Array, ""]:
    """|L^-1 K L^-T - I|^2 / 4 with the Frobenius norm, where G = L L^T: the KL divergence to second
    order around G = K.

    >>> float(quadratic_divergence(jnp.eye(3)))
    0.0

    With L = R T that is |T^-1 T^-T - I|^2 / 4. It stays below m / 4 for G above K, where the
    divergence grows with G, and is far larger than the divergence for G below K.
    """
    unit = jnp.eye(len(whitened), dtype=whitened.dtype)
    inverse = jax.scipy.linalg.solve_triangular(whitened, unit, lower=True)
    return jnp.sum((inverse @ inverse.T - unit) ** 2) / 4


def freedom(points: int, share: float) -> int:
    """Degrees of freedom of the noise on a Gram matrix of so many inducing points.

    >>> freedom(64, 0.25)
    16
    """
    return max(1, round(share * points))


def wishart_root(key: PRNGKeyArray, root: Float[Array, "m m"], degrees: int) -> Float[Array, "m r"]:
    """C Xi / sqrt(degrees), of the root C of a matrix G and standard normal Xi: a root of a draw W
    of the Wishart distribution with E W = G and E |W - G|^2 = (|G|^2 + (tr G)^2) / degrees.

    >>> wishart_root(jax.random.key(0), jnp.eye(3), 2).shape
    (3, 2)

    Source: milsom2024stochastic, Wishart noise.
    """
    noise = jax.random.normal(key, (len(root), degrees), root.dtype)
    return root @ noise / jnp.sqrt(degrees)


def noised(key: PRNGKeyArray, root: Float[Array, "m m"], share: float) -> Float[Array, "m r"]:
    """A root of (1 - KEPT) W + KEPT G, whose mean is G and which is as far from singular as a tenth
    of G."""
    drawn = wishart_root(key, root, freedom(len(root), share))
    return jnp.concatenate([jnp.sqrt(1 - KEPT) * drawn, jnp.sqrt(KEPT) * root], axis=1)
