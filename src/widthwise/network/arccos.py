"""Two functions of a pair of Gaussians that the kinked nonlinearities are made of."""

import jax
import jax.numpy as jnp


def angle(a, c, b):
    """(sqrt(ab - c^2), angle between u and v), without 0/0 and with finite derivatives.

    A cosine known to its last digits says nothing of angles below 4e-8 (in float64), so smaller
    ones are 0: an input and its duplicate, whose moments may differ by rounding, coincide.
    """
    # Not a * b - c * c: a compiler may fuse that into one rounding, which leaves an angle of 1e-8
    # between an input and itself.
    size = jnp.sqrt(a * b)
    apart = jnp.minimum(size - c, size + c) > 8 * jnp.finfo(jnp.result_type(size)).eps * size
    square = jnp.where(apart, (size - c) * (size + c), 1.0)
    sine = jnp.where(apart, jnp.sqrt(square), 0.0)
    # An input of zeros is at a right angle to all: a step at 0 then counts half of either side.
    theta = jnp.arctan2(sine, jnp.where((sine == 0) & (c == 0), 1.0, c))
    return sine, jnp.where(size == 0, jnp.pi / 2, theta)


@jax.custom_jvp
def rectified(a, c, b):
    """E[max(u, 0) max(v, 0)], with derivatives that are finite where u = v too."""
    sine, theta = angle(a, c, b)
    return (sine + c * (jnp.pi - theta)) / (2 * jnp.pi)


@rectified.defjvp
def _rectified_jvp(primals, tangents):
    # Plain autodiff divides by sin(angle), 0 where x meets itself. Price's theorem in all three
    # arguments: d/dc E[f f] = E[f' f'], d/da E[f f] = E[f'' f] / 2 with f'' a delta at 0.
    a, c, b = primals
    sine, theta = angle(a, c, b)
    floor = jnp.finfo(jnp.result_type(a)).tiny
    by_a, by_b = (sine / (4 * jnp.pi * jnp.maximum(s, floor)) for s in (a, b))
    da, dc, db = tangents
    value = (sine + c * (jnp.pi - theta)) / (2 * jnp.pi)
    return value, by_a * da + by_b * db + (jnp.pi - theta) / (2 * jnp.pi) * dc
