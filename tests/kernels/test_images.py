"""Kernels of images, slice by slice: the numbers of the rules, of near copies too."""

import numpy as np
import pytest

from widthwise.kernels import explain, images, kernel_diagonal, kernel_matrix
from widthwise.kernels.path import ACCURACY
from widthwise.network import (
    ABRelu,
    Abs,
    AveragePool,
    Conv,
    Dense,
    Erf,
    Flatten,
    GlobalAveragePool,
    GlobalSumPool,
    Identity,
    LayerNorm,
    LeakyRelu,
    Masked,
    Readout,
    Relu,
    SumPool,
    Unflatten,
)

BLOCK = Conv() >> Relu()
ROUND = Conv(padding="CIRCULAR") >> Relu()
NETWORKS = {
    "pooled at the end": BLOCK >> BLOCK >> GlobalAveragePool() >> Readout(),
    "flat": BLOCK >> Identity() >> Conv((2, 3), bias_variance=0.2) >> Relu() >> Flatten()
    >> Readout(),
    "inside": Conv(padding="VALID") >> LeakyRelu(0.2) >> Conv((2, 2)) >> Abs()
    >> GlobalAveragePool() >> Dense() >> Readout(bias_variance=0.3),
    "pooled between": BLOCK >> BLOCK >> AveragePool() >> BLOCK >> GlobalAveragePool() >> Readout(),
    "pooled twice": BLOCK >> AveragePool() >> BLOCK >> SumPool((3, 1)) >> AveragePool((1, 2))
    >> BLOCK >> Flatten() >> Readout(),
    "strides": Conv(strides=(2, 2)) >> Relu() >> Conv((2, 3), strides=(1, 2), bias_variance=0.2)
    >> Abs() >> Conv() >> GlobalAveragePool() >> Readout(),
    "strides and windows": BLOCK >> Conv((1, 2), strides=(2, 1), padding="VALID") >> Relu()
    >> AveragePool((1, 2)) >> BLOCK >> Flatten() >> Readout(),
    "circular": ROUND >> Conv((2, 3), padding="CIRCULAR", bias_variance=0.2) >> Relu()
    >> AveragePool((2, 4)) >> BLOCK >> GlobalAveragePool() >> Readout(),
    "circular behind windows": BLOCK >> AveragePool((1, 2)) >> ROUND >> Dense() >> Abs()
    >> Flatten() >> Readout(),
    "position by position": Conv((3, 2)) >> Relu() >> Dense() >> ABRelu(0.3, 1.0)
    >> GlobalSumPool() >> Readout(),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Matrices of a few images by the path of large ones."""
    monkeypatch.setattr(images, "LEAST", 0)


def pictures(rng, shape=(7, 6, 2)):
    """Some of them alike: a copy, a near copy, one with a plain part, one with an empty one."""
    x = rng.normal(size=(20, *shape))
    x[1], x[2] = x[0], x[0] + 1e-4 * rng.normal(size=shape)
    x[3, :3], x[4, 2:] = 0.7, 0.0
    return x


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_slices_are_the_rules(name, rng, monkeypatch):
    net, x = NETWORKS[name], pictures(rng)
    exact, sizes = kernel_matrix(net, x), kernel_diagonal(net, x)
    monkeypatch.setattr(images, "LEAST", 0)
    monkeypatch.setattr(images, "TILE", 18)
    for precision in ("float64", "float32"):
        assert explain(net, x, precision=precision).path == "images"
        bound = 1e-11 if precision == "float64" else 2 * ACCURACY["float32"]
        whole = kernel_matrix(net, x, precision=precision)
        cross = kernel_matrix(net, x[:5], x[3:], precision=precision)
        for one, two, other, size in zip(whole, cross, exact, sizes, strict=True):
            room = bound * np.sqrt(np.outer(size, size))
            assert np.all(np.abs(one - other) <= room) and np.array_equal(one, one.T)
            assert np.all(np.abs(two - other[:5, 3:]) <= room[:5, 3:])


def test_sequences_are_images_of_one_row(small, rng):
    x = rng.normal(size=(6, 9, 2))
    net = (
        Conv((3,)) >> Relu() >> AveragePool((2,)) >> Conv((2,)) >> Relu() >> Flatten() >> Readout()
    )
    found = kernel_matrix(net, x)
    wide = Conv((1, 3)) >> Relu() >> AveragePool((1, 2)) >> Conv((1, 2)) >> Relu() >> Flatten()
    high = kernel_matrix(wide >> Readout(), x[:, None])
    for one, other in zip(found, high, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    rows = kernel_matrix(Unflatten((9,), channels=2) >> net, x.reshape(6, -1))
    np.testing.assert_array_equal(rows.ntk, found.ntk)


@pytest.mark.parametrize(("net", "reason"), [
    (Conv() >> Erf() >> Flatten() >> Readout(), "Erf() is none of its layers"),
    (Conv() >> LayerNorm() >> Relu() >> Flatten() >> Readout(), "LayerNorm() is none"),
    (Conv((2, 2), (1, 2), "CIRCULAR") >> Flatten() >> Readout(), "go round stand beside strides"),
    (ROUND >> BLOCK >> Flatten() >> Readout(), "or others that do not"),
    (Conv((13, 1), padding="CIRCULAR") >> Flatten() >> Readout(), "more than once"),
    (BLOCK >> AveragePool((2, 2), (1, 1)) >> Flatten() >> Readout(), "overlap"),
    (BLOCK >> Flatten() >> Dense() >> Relu() >> Readout(), "Relu() stands behind the positions"),
    (Masked() >> BLOCK >> GlobalAveragePool() >> Readout(), "positions may be missing"),
])  # fmt: skip
def test_where_it_does_not_apply(net, reason, small, rng):
    found = explain(net, rng.normal(size=(3, 4, 4, 1)))
    assert found.path == "rules" and reason in dict(found.others)["images"]


def test_little_work_is_left_to_the_rules(rng):
    found = explain(NETWORKS["flat"], rng.normal(size=(3, 4, 4, 1)))
    assert dict(found.others)["images"] == "there is too little to do"
