"""Networks that are drawn to be held against a limit, and compositions that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.finite import FiniteNetwork
from widthwise.scaling import NTK


def drawn(net, x, width, count, key, outputs=1):
    """Outputs (count, rows, outputs) and tangent kernels of the first output of drawn networks,
    with their factors on step sizes."""
    finite = FiniteNetwork(net, width, x.shape[1:], outputs, NTK())
    rows = jnp.asarray(x, "float32")

    def draw(key):
        parameters = finite.draw(key)
        jacobian = jax.jacrev(lambda p: finite.apply(p, rows)[:, 0])(parameters)
        shares = finite.map(lambda one, j: one.rate * _square(j.reshape(len(x), -1)), jacobian)
        return finite.apply(parameters, rows), sum(jax.tree.leaves(shares))

    # one after another: side by side, the slopes of wide filters take gigabytes
    draws = jax.jit(lambda keys: jax.lax.map(draw, keys))
    return [np.asarray(part) for part in draws(jax.random.split(key, count))]


def _square(j):
    return j @ j.T


def refuses(compose, words: str) -> None:
    """A composition is refused in one sentence with these words."""
    with pytest.raises(ValueError, match=words) as refusal:
        compose()
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")
