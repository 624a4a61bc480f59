"""Features and slopes of many neurons at many rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.network.pointwise import AbstractNonlinearity
from widthwise.solve import float64

Field = Float[np.ndarray, "m g"]


def activate(activation: AbstractNonlinearity | None, h: Field) -> tuple[Field, Field]:
    """f(h) and f'(h) in float32; None is the identity."""
    if activation is None:
        return h, np.ones_like(h)
    with float64():  # h stays what it is: the scope only keeps constants exact
        features, slopes = _jvp(activation, h)
    return np.asarray(features, np.float32), np.asarray(slopes, np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _jvp(activation, h):
    return jax.jvp(activation, (h,), (jnp.ones_like(h),))
