"""Kernel matrices by all paths: the same numbers, to the precision that is asked for."""

import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from slowly import cases_of

import widthwise as ww
from widthwise.kernels import compiled, cosine, explain, kernel_matrix, rules
from widthwise.kernels.path import ACCURACY, STORED
from widthwise.network import (
    Abs,
    AveragePool,
    Conv,
    Dense,
    Elementwise,
    Erf,
    Flatten,
    Gelu,
    Identity,
    LayerNorm,
    LeakyRelu,
    Monomial,
    Readout,
    Relu,
    Sign,
)
from widthwise.network.begin import begin
from widthwise.network.build import tangents
from widthwise.scaling import NTK
from widthwise.solve.precision import float64

PLAIN: dict[str, Any] = {"bias_multiplier": 0.0}


def deep(function, depth, **settings):
    net = Dense(**settings) >> function
    for _ in range(depth - 1):
        net = net >> Dense(**settings) >> function
    return net >> Readout(**settings)


HOMOGENEOUS = {
    "Relu": deep(Relu(), 3, **PLAIN),
    "deep Relu": deep(Relu(), 20, **PLAIN),
    "LeakyRelu": deep(LeakyRelu(0.2), 2, **PLAIN),
    "Abs": deep(Abs(), 2, **PLAIN),
    "Sign": deep(Sign(), 1, **PLAIN),
    "Monomial": deep(Monomial(2), 1, **PLAIN),
    "skip": Dense(**PLAIN) >> (Identity() + (Relu() >> Dense(**PLAIN))) >> Readout(**PLAIN),
}
EQUAL = {
    "Relu": deep(Relu(), 3, bias_variance=0.3),
    "Erf": deep(Erf(), 3, bias_variance=0.1),
    "Gelu": deep(Gelu(), 2),
    "normed": Dense() >> Relu() >> Dense() >> LayerNorm() >> Relu() >> Readout(),
}


@pytest.fixture
def small(monkeypatch):
    """Matrices of a few rows by the path of large ones."""
    monkeypatch.setattr(cosine, "LEAST", 0)
    monkeypatch.setattr(cosine.CosinePath, "rows", 16)


def by_rules(net, x, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(cosine, "LEAST", 2**60)
        assert explain(net, x).path == "rules"
        return kernel_matrix(net, x)


def held(net, x1, x2, monkeypatch, precisions=ACCURACY):
    """The cosine path applies, and is as close to the rules as it says."""
    whole = x1 if x2 is None else np.concatenate([x1, x2])
    exact = by_rules(net, whole, monkeypatch)
    part = slice(None) if x2 is None else slice(len(x1), None)
    for precision in precisions:
        assert explain(net, x1, x2, precision=precision).path == "cosine"
        found = kernel_matrix(net, x1, x2, precision=precision)
        for one, other in zip(found, exact, strict=True):
            size = np.sqrt(np.diag(other))
            bound = ACCURACY[precision] * np.outer(size[: len(x1)], size[part])
            assert one.dtype == STORED[precision]
            assert np.all(np.abs(one - other[: len(x1), part]) <= bound)
            assert x2 is not None or np.array_equal(one, one.T)


@pytest.mark.parametrize("name", cases_of(HOMOGENEOUS, ("deep Relu", "Monomial")))
def test_homogeneous_networks(name, small, rng, monkeypatch):
    x = rng.normal(size=(50, 5)) * rng.uniform(0.1, 10, size=(50, 1))
    held(HOMOGENEOUS[name], np.concatenate([x, x[:1]]), None, monkeypatch)  # a row twice
    held(HOMOGENEOUS[name], x[:40], x[40:], monkeypatch, ("float32",))


@pytest.mark.parametrize("name", EQUAL)
def test_rows_of_one_length(name, small, rng, monkeypatch):
    x = rng.normal(size=(50, 5))
    x *= 3 / np.linalg.norm(x, axis=1, keepdims=True)
    held(EQUAL[name], x, None, monkeypatch)
    held(EQUAL[name], x[:40], x[35:], monkeypatch, ("float32",))


def test_rows_of_zeros(small, rng, monkeypatch):
    x = np.concatenate([rng.normal(size=(10, 4)), np.zeros((2, 4))])
    held(HOMOGENEOUS["Relu"], x, None, monkeypatch, ("float64",))
    assert "zeros have no angle" in str(explain(HOMOGENEOUS["Sign"], x))


@pytest.mark.parametrize("depth", [1, 3, 10, 20])
def test_near_copies_leave_no_negative_eigenvalue(depth, small):
    """Digits and copies of them 1e-4 away: tangent kernels in float32, no jitter."""
    x = ww.data.load("digits", train=450, test=10).x_train / 16
    rng = np.random.default_rng(0)
    x = np.concatenate([x, x[:50] + 1e-4 * rng.normal(size=(50, 64))])
    net = deep(Relu(), depth, **PLAIN)
    assert explain(net, x, which="ntk", precision="float32").path == "cosine"
    found = kernel_matrix(net, x, which="ntk", precision="float32")
    assert np.linalg.eigvalsh(found.astype(np.float64))[0] > 0


def test_where_it_does_not_apply(small, rng):
    x = rng.normal(size=(12, 4))
    net = HOMOGENEOUS["Relu"]
    for other, rows, reason in [
        (deep(Relu(), 1), x, "rows differ in length"),
        (deep(Erf(), 1, **PLAIN), x, "rows differ in length"),
        (deep(Sign(), 2, **PLAIN), x, "a polynomial of degree 49"),  # a root of a root
        (net, x[:, :1], "no angles between them"),
        (net, np.zeros((12, 4)), "all rows are zero"),
    ]:
        found = explain(other, rows)
        assert found.path == "rules" and dict(found.others)["cosine"].find(reason) >= 0

    def kinked(h):  # homogeneous on none but its own half line
        return jnp.where(h > 1.0, h, 0.0)

    found = explain(Dense(**PLAIN) >> Elementwise(fn=kinked, kinks=(1.0,)) >> Readout(**PLAIN), x)
    assert found.path == "rules" and "not cosine" in str(found)


def test_small_matrices_are_not_worth_a_fit(rng):
    found = explain(HOMOGENEOUS["Relu"], rng.normal(size=(12, 4)))
    assert str(found).splitlines()[1] == "not cosine: there are fewer than 2,097,152 entries."


def test_layers_without_weights_may_repeat(rng):
    x = rng.normal(size=(3, 4, 2))
    few, many = (
        kernel_matrix(Conv((2,)) >> pools >> Flatten() >> Readout(), x)
        for pools in (AveragePool((1,)), AveragePool((1,)) >> AveragePool((1,)))
    )
    np.testing.assert_array_equal(many.ntk, few.ntk)


@pytest.mark.parametrize("function", [Relu(), Erf()], ids=repr)
def test_layers_in_loops_are_the_same_layers(function, rng):
    """What is compiled layer by layer is the network's own recursion."""
    net = Dense() >> function >> deep(Gelu(), 3, bias_variance=0.2)
    assert rules._repeated(list(net.sequence)) == (1, 1)
    assert rules._repeated(list(net.sequence[2:])) == (2, 3)
    x = rng.normal(size=(6, 3))
    with float64():
        own = tangents(net, 3, NTK())
        found = jax.jit(lambda: net.kernel(own, begin(net, jnp.asarray(x))))()
        exact = np.asarray(found.xy), np.asarray(found.ntk)
    for one, other in zip(kernel_matrix(net, x), exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_one_matrix_and_where_to_write(precision, rng, tmp_path):
    net, x = deep(Relu(), 1), rng.normal(size=(7, 3))
    both = kernel_matrix(net, x, precision=precision)
    for name in ("nngp", "ntk"):
        file = np.lib.format.open_memmap(tmp_path / name, "w+", precision, (7, 7))
        found = kernel_matrix(net, x, which=name, precision=precision, out=file)
        assert found is file
        np.testing.assert_array_equal(file, getattr(both, name))
    pair = np.empty((7, 7), precision), np.empty((7, 7), precision)
    kernel_matrix(net, x, precision=precision, out=pair)
    np.testing.assert_array_equal(pair[1], both.ntk)


def test_refused_settings(rng, unchecked):
    net, x = deep(Relu(), 1), rng.normal(size=(7, 3))
    for wrong, words in [
        ({"which": "tangent"}, "which is 'tangent': give \"nngp\""),
        ({"precision": "half"}, "precision is 'half': give one of float64, float32, fast"),
        ({"which": "ntk", "out": np.empty((7, 7), "float32")}, r"give 1 of float64 \(7, 7\)"),
        ({"out": (np.empty((7, 7)),)}, r"give 2 of float64 \(7, 7\)"),
        ({"which": "ntk", "out": np.empty((7, 6))}, r"give 1 of float64 \(7, 7\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            kernel_matrix(net, x, **wrong)


def test_an_error_in_one_tile_ends_the_matrix(small, rng, monkeypatch):
    def broken(*_):
        raise FloatingPointError("in a tile")

    x = rng.normal(size=(40, 3))
    net = HOMOGENEOUS["Relu"]
    path = explain(net, x).path
    assert path == "cosine"
    monkeypatch.setattr(compiled, "of_cosines", broken)
    monkeypatch.setattr(cosine, "_check", lambda *_: None)
    with pytest.raises(FloatingPointError, match="in a tile"):
        kernel_matrix(net, x)


@pytest.mark.slow
def test_all_devices_take_tiles():
    """Two devices of one machine, in a fresh process: the same matrix."""
    program = """
import numpy as np, jax
from widthwise import Dense, Readout, Relu
from widthwise.kernels import kernel_matrix, rules
assert len(jax.devices()) == 2
x = np.random.default_rng(0).normal(size=(40, 3))
net = Dense() >> Relu() >> Readout()
whole = kernel_matrix(net, x).ntk
rules.TILE = 8
used = set()
inner = rules._through
def seen(*given):
    found = inner(*given)
    used.update(*(kernel.devices() for kernel in found))
    return found
rules._through = seen
np.testing.assert_allclose(kernel_matrix(net, x).ntk, whole, rtol=1e-13)
assert len(used) == 2, used
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
