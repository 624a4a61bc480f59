"""Empirical kernels and Taylor expansions against reference values of another implementation."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.finite import empirical_kernel, tangent_product, taylor_expand
from widthwise.solve import float64

ORACLE = np.load(Path(__file__).parents[1] / "oracle" / "empirical.npz")


def affine(x, w, b, w_std, b_std):
    return w_std / np.sqrt(len(w)) * x @ w + b_std * b


def network(p, x):
    h = jax.scipy.special.erf(affine(x, p["W1"], p["b1"], 1.5, 0.1))
    h = jnp.maximum(affine(h, p["W2"], p["b2"], 1.4, 0.2), 0)
    return affine(h, p["W3"], p["b3"], 1.0, 0.1)


def convolve(x, w, stride, padding, w_std, b, b_std):
    fan_in = w.shape[0] * w.shape[1] * w.shape[2]
    out = jax.lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return w_std / np.sqrt(fan_in) * out + b_std * b


def convolutional(p, x):
    h = convolve(x, p["cW1"], (2, 2), "SAME", 1.5, p["cb1"], 0.1)
    h = jax.nn.gelu(h, approximate=False)
    h = jnp.maximum(convolve(h, p["cW2"], (1, 1), "VALID", 1.3, p["cb2"], 0.2), 0)
    return h.mean(axis=(1, 2)) @ p["cW3"] / np.sqrt(len(p["cW3"]))


@pytest.fixture
def parameters():
    with float64():
        names = [f"{kind}{i}" for kind in "Wb" for i in (1, 2, 3)]
        yield (
            {name: jnp.asarray(ORACLE[name]) for name in names},
            {name: jnp.asarray(ORACLE[name + "n"]) for name in names},
        )


@pytest.mark.parametrize("which", ["ntk", "nngp"])
def test_kernels(parameters, which):
    x1, x2 = jnp.asarray(ORACLE["x1"]), jnp.asarray(ORACLE["x2"])
    kinds: Any = (("mean", "trace"), ("each", "diag"), ("all", "full"))
    for outputs, name in kinds:
        found = empirical_kernel(
            network, parameters[0], x1, x2, which=which, outputs=outputs, block=3
        )
        np.testing.assert_allclose(found, ORACLE[f"{which}_{name}"], rtol=1e-8, atol=1e-12)


def test_symmetric_half_equals_the_whole(parameters):
    x = jnp.asarray(ORACLE["x2"])[:5]  # the last block is filled up
    kinds: Any = ("each", "all")
    for outputs in kinds:
        settings: Any = {"outputs": outputs, "block": 2, "way": "structured"}
        half = empirical_kernel(network, parameters[0], x, **settings)
        whole = empirical_kernel(network, parameters[0], x, x, **settings)
        np.testing.assert_allclose(half, whole, rtol=1e-12, atol=1e-14)


def test_one_row_against_itself(parameters):
    x = jnp.asarray(ORACLE["x1"])
    full = empirical_kernel(network, parameters[0], x, outputs="all")
    rows = np.arange(len(x))
    np.testing.assert_allclose(full[rows, rows], ORACLE["ntk_diag_batch"], rtol=1e-8)


def test_tangent_product(parameters):
    x1, x2 = jnp.asarray(ORACLE["x1"]), jnp.asarray(ORACLE["x2"])
    found = tangent_product(network, parameters[0], x1, x2, jnp.asarray(ORACLE["cotangent"]))
    np.testing.assert_allclose(found, ORACLE["ntk_vp"], rtol=1e-8)


@pytest.mark.parametrize("degree, name", [(1, "lin"), (2, "taylor2"), (3, "taylor3")])
def test_taylor(parameters, degree, name):
    expanded = taylor_expand(network, parameters[0], degree)
    found = expanded(parameters[1], jnp.asarray(ORACLE["x1"]))
    np.testing.assert_allclose(found, ORACLE[name], rtol=1e-8)


@pytest.mark.slow
def test_a_plain_convolutional_function():
    with float64():
        p = {name: jnp.asarray(ORACLE[name]) for name in ("cW1", "cb1", "cW2", "cb2", "cW3")}
        x = jnp.asarray(ORACLE["xc"])
        np.testing.assert_allclose(convolutional(p, x), ORACLE["conv_f"], rtol=1e-8)
        found = empirical_kernel(convolutional, p, x, outputs="all")
        np.testing.assert_allclose(found, ORACLE["conv_ntk_full"], rtol=1e-8, atol=1e-12)
