"""Kernels of fully connected networks against reference values of another implementation."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.kernels import kernel_matrix
from widthwise.network import (
    ABRelu,
    Dense,
    Elementwise,
    Erf,
    ExpNormalized,
    Gaussian,
    Gelu,
    Hermite,
    Identity,
    LeakyRelu,
    Monomial,
    Rbf,
    Readout,
    RectifiedMonomial,
    Relu,
    Sign,
    Sin,
    Tanh,
)
from widthwise.scaling import ABC, Standard

FOLDER = Path(__file__).parent / "lazy"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())


def dense(weight, bias=0.1, layer: Any = Dense, **settings):
    """weight and bias are standard deviations; a bias enters as bias * N(0, 1), and is trained."""
    return layer(weight_variance=weight**2, bias_variance=bias**2, bias_multiplier=bias, **settings)


def readout(bias=0.1):
    return dense(1.0, bias, Readout)


def deep(f, weight, depth, bias=0.1):
    net = dense(weight, bias) >> f
    for _ in range(depth - 1):
        net = net >> dense(weight, bias) >> f
    return net >> readout(bias)


def two(f):
    return deep(f, 1.2, 2)


ROOT2 = 2**0.5
CASES = {
    "fc_relu_d1": deep(Relu(), ROOT2, 1),
    "fc_relu_d3": deep(Relu(), ROOT2, 3),
    "fc_relu_nobias_d3": deep(Relu(), ROOT2, 3, bias=0.0),
    "fc_erf_d1": deep(Erf(), 1.5, 1),
    "fc_erf_d3": deep(Erf(), 1.5, 3),
    "fc_linear_d3": dense(1.5) >> dense(1.5) >> dense(1.5) >> readout(0.0),
    "fc_dense_only": dense(1.3, 0.4, Readout),
    "fc_hidden_out": dense(1.5) >> Relu(),
    "nl_erf_abc": two(Erf(0.7, 1.3, 0.2)),
    "nl_gelu": two(Gelu()),
    "nl_sin": two(Sin()),
    "nl_rbf": two(Rbf(0.6)),
    "nl_leakyrelu": two(LeakyRelu(0.1)),
    "nl_abrelu": two(ABRelu(-0.3, 1.4)),
    "nl_sign": two(Sign()),
    "nl_gaussian": two(Gaussian(1.2, -0.7)),
    "nl_expnormalized": two(ExpNormalized(gamma=0.8, shift=-1.0)),
    "nl_monomial1": deep(Monomial(1), 1.2, 1),
    "nl_monomial3": deep(Monomial(3), 1.2, 1),
    "nl_rectmonomial1": deep(RectifiedMonomial(1), 1.2, 1),
    "nl_hermite1": deep(Hermite(1), 1.0, 1, bias=0.0),
    "nl_hermite3": deep(Hermite(3), 1.0, 1, bias=0.0),
    "nl_tanh_quad100": two(Tanh()),
    "res_sum_fc": (
        dense(1.5) >> ((Relu() >> dense(1.3, 0.2)) + Identity()) >> Relu() >> readout(0.0)
    ),
    "identity_only": Identity() >> dense(1.5) >> Identity() >> Relu() >> readout(0.0),
    "dropout_test_fc": dense(1.5) >> Relu() >> Identity() >> readout(0.0),
}


def check(net, name, rtol):
    """Both sides at once, so that one program is compiled. Entries that the source does not give
    are NaN there."""
    stored = np.load(FOLDER / f"{name}.npz")
    compared, on_diagonal = 0, MANIFEST["diagonals"].get(name, [rtol])[0]
    on_diagonal = on_diagonal and max(on_diagonal, rtol)
    whole = kernel_matrix(net, np.concatenate([stored["x1"], stored["x2"]]))
    count = len(stored["x1"])
    parts = {"1": slice(0, count), "2": slice(count, None)}
    for one, other in ("11", "12", "22"):
        for kind in ("nngp", "ntk"):
            wanted = stored[f"{kind}_{one}{other}"]
            mine = getattr(whole, kind)[parts[one], parts[other]]
            known = np.isfinite(wanted)
            alike = np.eye(*wanted.shape, dtype=bool) & (one == other)
            for part, digits in ((known & ~alike, rtol), (known & alike, on_diagonal)):
                if digits is not None:
                    compared += part.sum()
                    np.testing.assert_allclose(mine[part], wanted[part], digits)
    assert compared > 100


@pytest.mark.parametrize("name", CASES)
def test_kernels(name):
    check(CASES[name], name, MANIFEST["exceptions"].get(name, [MANIFEST["rtol"]])[0])


def test_kernels_whatever_the_switch(x64):
    check(CASES["fc_relu_d3"], "fc_relu_d3", MANIFEST["rtol"])


def test_every_stored_case_is_tested():
    assert {path.stem for path in FOLDER.glob("*.npz")} == {*CASES, "std_fc_relu"}


@pytest.mark.parametrize(
    "name, f, kinks", [("nl_abrelu", ABRelu(-0.3, 1.4), (0.0,)), ("nl_gelu", Gelu(), ())]
)
def test_the_same_by_quadrature(name, f, kinks):
    """The series of a function without a closed form, inside its stated error."""
    series = Elementwise(fn=f, kinks=kinks, degree=200)
    rtol = 10 * max(series.error(2.0)) if kinks else 1e-8
    check(two(series), name, rtol)


def test_tanh_does_not_depend_on_the_degree():
    x = np.load(FOLDER / "nl_tanh_quad100.npz")["x1"]
    fine = kernel_matrix(two(Elementwise(fn=jnp.tanh, degree=500)), x)
    for found, wanted in zip(kernel_matrix(two(Tanh()), x), fine, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.parametrize(
    "scaling, times", [(ABC(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(0, 0, 0)), 1), (Standard(), 16)]
)
def test_standard_parametrization_with_its_widths(scaling, times):
    """w ~ N(0, variance / fan_in), all stepped alike; Standard() steps by 1 / n of that. The
    reference's widths of 64 and 48 are 4 and 3 times 16."""

    def layer(weight, bias, kind: Any = Dense, **settings):
        return kind(
            weight_variance=weight**2, bias_variance=bias**2, bias_multiplier=1.0, **settings
        )

    hidden = layer(1.5, 0.1, times=4) >> Relu() >> layer(1.4, 0.2, times=3) >> Relu()
    stored = np.load(FOLDER / "std_fc_relu.npz")
    net = hidden >> layer(1.0, 0.1, Readout)
    for which, (x1, x2) in {"11": ("x1", None), "12": ("x1", "x2"), "22": ("x2", None)}.items():
        found = kernel_matrix(net, stored[x1], x2 and stored[x2], scaling=scaling, width=16)
        np.testing.assert_allclose(found.nngp, stored[f"nngp_{which}"], rtol=1e-8)
        np.testing.assert_allclose(times * found.ntk, stored[f"ntk_{which}"], rtol=1e-8)
