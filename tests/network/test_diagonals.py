"""Kernels of deep networks in float32, where x meets itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.network import ABRelu, Abs, Dense, Moments, RectifiedMonomial, Relu
from widthwise.network.build import tangents
from widthwise.scaling import NTK


def diagonals(f, weight, x, depth):
    """Of both kernels, behind each of the layers."""
    block = Dense(weight_variance=weight, bias_variance=0.125, bias_multiplier=0.5) >> f
    own = tangents(block, x.shape[1], NTK())

    def step(moments, _):
        moments = block.kernel(own, moments)
        return moments, (jnp.diagonal(moments.xy), jnp.diagonal(moments.ntk))

    return [np.asarray(part) for part in jax.lax.scan(step, Moments.of(x), length=depth)[1]]


@pytest.mark.parametrize(
    "f, weight, digits",
    [
        (Relu(), 2.0, 1e-6),
        (ABRelu(-0.25, 1.5), 0.875, 1e-6),
        (RectifiedMonomial(0), 1.0, 1e-6),
        (Abs(), 1.0, 2e-6),  # 4 Relu - identity: twice the roundings of Relu
    ],
    ids=repr,
)
def test_float32_at_depths_up_to_30(f, weight, digits, rng):
    """No digit is lost to angles, which are exactly 0 there: what remains are the roundings of
    some operations a layer. (The settings are numbers that float32 holds.)"""
    x = rng.normal(size=(5, 7)).astype("float32")
    found = diagonals(f, weight, jnp.asarray(x), 30)
    with jax.enable_x64(True):
        exact = diagonals(f, weight, jnp.asarray(x, "float64"), 30)
    for single, double in zip(found, exact, strict=True):
        assert single.dtype == np.float32 and double.dtype == np.float64
        np.testing.assert_allclose(single, double, rtol=digits)
