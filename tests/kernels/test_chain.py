"""The path of chains: the numbers of the rules, to the precision that is asked for."""

from typing import Any, get_args

import numpy as np
import pytest
from slowly import cases_of

import widthwise as ww
from widthwise.kernels import chain, compiled, explain, kernel_diagonal, kernel_matrix
from widthwise.kernels.path import ACCURACY, STORED, Precision
from widthwise.network import (
    ABRelu,
    Abs,
    Conv,
    Dense,
    Erf,
    Flatten,
    Gelu,
    Identity,
    LayerNorm,
    Readout,
    Relu,
    Unflatten,
)
from widthwise.scaling import Standard

BIASED = {"bias_variance": 0.1}
OTHER: dict[str, Any] = {"weight_variance": 1.3, "bias_variance": 0.4, "bias_multiplier": 0.7}
PLAIN = {"bias_multiplier": 0.0}


def stacked(*functions, **settings: Any):
    net = Identity()
    for function in functions:
        net = net >> Dense(**settings) >> function
    return net >> Readout(**settings)


CHAINS = {
    "1": stacked(Erf(), **BIASED),
    "other numbers": stacked(Erf(0.7, 1.6, 0.3), *[Erf(-1.5, 0.4, -0.2)] * 4, **OTHER),
    "kinks": stacked(Relu(), Abs(), ABRelu(-0.5, 2.0), **OTHER),
    "plain": stacked(Relu(), Erf(2.0, -3.0), **PLAIN),
    "features": Dense(**OTHER) >> Identity() >> Dense() >> Erf() >> Dense(times=2) >> Dense(),
}


@pytest.fixture
def small(monkeypatch):
    """Matrices of a few rows by the path of large ones."""
    monkeypatch.setattr(chain, "LEAST", 0)
    monkeypatch.setattr(chain.ChainPath, "rows", 16)


def some_rows(rng):
    """Of lengths from 0.1 to 10, opposite ones, near copies and zeros among them."""
    x = rng.normal(size=(40, 5)) * np.geomspace(0.1, 10, 40)[:, None]
    near = x[:3] + [[1e-1], [1e-2], [1e-3]] * rng.normal(size=(3, 5)) * 0.1
    return np.concatenate([x, near, -x[:2], 3 * x[2:3], np.zeros((1, 5))])


def held(net, rows, one, two, monkeypatch, scaling=None, width=np.inf):
    """The path applies, and is as close to the rules as it says, on some rows against others; on
    copies, as the rules are on rows that meet themselves."""
    settings: dict[str, Any] = {"scaling": scaling, "width": width}
    with monkeypatch.context() as patched:
        patched.setattr(chain, "LEAST", 2**60)
        assert explain(net, rows, **settings).path == "rules"
        exact = kernel_matrix(net, rows, **settings)
    sides = rows[one], None if two is None else rows[two]
    wanted = np.ix_(one, one if two is None else two)
    for precision in get_args(Precision):
        assert explain(net, *sides, precision=precision, **settings).path == "chain"
        found = kernel_matrix(net, *sides, precision=precision, **settings)
        for kernel, whole in zip(found, exact, strict=True):
            size = np.sqrt(np.diag(whole))
            bound = ACCURACY[precision] * np.outer(size, size)[wanted]
            assert kernel.dtype == STORED[precision]
            assert np.all(np.abs(kernel - whole[wanted]) <= bound)
            assert two is not None or np.array_equal(kernel, kernel.T)


@pytest.mark.parametrize("name", cases_of(CHAINS, ("kinks", "plain")))
def test_chains(name, small, rng, monkeypatch):
    rows = some_rows(rng)
    one = rng.permutation(np.concatenate([np.arange(len(rows)), [0, 5, 5, 46]]))  # some twice
    held(CHAINS[name], rows, one, None, monkeypatch)


def test_rows_against_others(small, rng, monkeypatch):
    rows = some_rows(rng)
    one, two = np.arange(30), np.concatenate([np.arange(20, len(rows)), [0, 0, 5]])
    held(CHAINS["plain"], rows, one, two, monkeypatch, Standard(), 64)


def test_rows_of_one_number(small, rng, monkeypatch):
    rows = np.concatenate([rng.normal(size=(20, 1)), [[0.0]]])
    held(CHAINS["1"], rows, np.arange(21), None, monkeypatch)


def test_one_matrix(small, rng):
    x = some_rows(rng)
    both = kernel_matrix(CHAINS["1"], x)
    for name in ("nngp", "ntk"):
        assert explain(CHAINS["1"], x, which=name).path == "chain"
        found = kernel_matrix(CHAINS["1"], x, which=name)
        np.testing.assert_array_equal(found, getattr(both, name))


def test_a_row_meets_itself(small, rng):
    """On the diagonal as by the rules alone; copies to the last digits."""
    net, x = CHAINS["kinks"], rng.normal(size=(20, 784))
    found = kernel_matrix(net, np.concatenate([x, x]))
    for kernel, own in zip(found, kernel_diagonal(net, x), strict=True):
        np.testing.assert_allclose(np.diag(kernel)[:20], own, rtol=1e-15)
        np.testing.assert_allclose(np.diag(kernel[:20, 20:]), own, rtol=1e-14)


@pytest.mark.parametrize(
    "name, precision", [pytest.param("1", "float64", marks=pytest.mark.slow), ("kinks", "float32")]
)
def test_near_copies_leave_no_negative_eigenvalue(name, precision, small):
    """Digits and copies of them 1e-4 away: tangent kernels without jitter. That of error functions
    is smooth, so that its eigenvalues are as small as squares of that, which float32 cannot hold.
    """
    x = ww.data.load("digits", train=450, test=10).x_train / 16
    rng = np.random.default_rng(0)
    x = np.concatenate([x, x[:50] + 1e-4 * rng.normal(size=(50, 64))])
    net = CHAINS[name]
    assert explain(net, x, which="ntk", precision=precision).path == "chain"
    found = kernel_matrix(net, x, which="ntk", precision=precision)
    assert np.linalg.eigvalsh(found.astype(np.float64))[0] > 0


def test_where_it_does_not_apply(small, rng):
    x, images = rng.normal(size=(12, 4)), rng.normal(size=(3, 4, 4, 1))
    for other, rows, reason in [
        (stacked(Erf(), Gelu()), x, "Gelu() is none of its layers"),
        (Dense() >> LayerNorm() >> Erf() >> Readout(), x, "is none of its layers"),
        (Dense() >> (Identity() + (Erf() >> Dense())) >> Readout(), x, "is none of its layers"),
        (Conv((2, 2)) >> Erf() >> Flatten() >> Readout(), images, "not plain vectors"),
        (Unflatten((2, 2)) >> Dense() >> Erf() >> Flatten() >> Readout(), x, "not plain vectors"),
    ]:
        found = explain(other, rows)
        assert found.path == "rules" and reason in dict(found.others)["chain"]


def test_small_matrices_are_not_worth_a_check(rng):
    found = explain(CHAINS["1"], rng.normal(size=(12, 4)))
    assert found.path == "rules" and dict(found.others)["chain"] == "there is too little to do"


def test_it_is_compared_with_the_rules(small, rng, monkeypatch):
    exact = compiled.through_layers

    def off(*given):
        exact(*given)
        given[-1][:] *= 1 + 2e-10

    monkeypatch.setattr(compiled, "through_layers", off)
    x = rng.normal(size=(12, 4))
    assert explain(CHAINS["1"], x, precision="float32").path == "chain"
    found = dict(explain(CHAINS["1"], x).others)["chain"]
    assert found == "at some rows it is further than 1e-10 from the rules"
