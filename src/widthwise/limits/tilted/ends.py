"""Whether a tilted law ends: how its density falls far from zero, along all that phi can reach."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widthwise.limits.tilted.law import Functions, activated

FAR = 1e4  # standard deviations: a bounded phi is nothing there, against them
STARTS, STEPS = 256, 100  # directions, and steps of each towards the slowest fall
LONG, SHORT = 0.3, 0.003  # the first and the last step, of a direction's length


@functools.partial(jax.jit, static_argnums=0)
def slowest_fall(
    functions: Functions, root: Any, tilt: Any, z: Float[Array, "s r"]
) -> Float[Array, ""]:
    """The least of 1 + phi(t R u)^T Lambda phi(t R u) / t^2 over unit vectors u, t being large.

    The density falls as exp(-t^2 / 2) to the power of it: at zero and below it does not. Directions
    start at points of the law and go down the gradient on the sphere. That no fall is missed is
    not certain: to find the least is as hard as to tell a copositive matrix.
    """

    def fall(u):
        features = activated(functions, FAR * (u @ root.T)) / FAR
        return 1 + jnp.sum((features @ tilt) * features, axis=1)

    def step(u, length):
        slope = jax.grad(lambda v: jnp.sum(fall(v / jnp.linalg.norm(v, axis=1, keepdims=True))))(u)
        size = jnp.linalg.norm(slope, axis=1, keepdims=True)
        u = u - length * slope / jnp.where(size > 0, size, 1.0)
        u = u / jnp.linalg.norm(u, axis=1, keepdims=True)
        return u, jnp.min(fall(u))

    spread = jnp.linspace(0, len(z) - 1, min(STARTS, len(z))).astype(int)
    u = z[spread] / jnp.linalg.norm(z[spread], axis=1, keepdims=True)
    least = jax.lax.scan(step, u, jnp.geomspace(LONG, SHORT, STEPS))[1]
    return jnp.minimum(jnp.min(least), jnp.min(fall(u)))
