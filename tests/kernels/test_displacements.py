"""Slices of pairs of positions in JAX, against the rules."""

from typing import Any

import numpy as np
import pytest
from slowly import cases_of

from widthwise.kernels import displacements, explain, kernel_matrix, matrix
from widthwise.network import (
    AveragePool,
    Conv,
    Dense,
    Erf,
    Flatten,
    Gelu,
    GlobalAveragePool,
    GlobalSumPool,
    Identity,
    Readout,
    Relu,
    Sin,
    Tanh,
    Unflatten,
)

BIASED: dict[str, Any] = {"bias_variance": 0.3, "bias_multiplier": 0.5}
BLOCK = Conv() >> Erf()
END = GlobalAveragePool() >> Readout()
NETWORKS = {
    "repeated": (BLOCK >> BLOCK >> BLOCK >> END, (6, 5, 3)),
    "all paddings": (
        Conv((4,), padding="CIRCULAR", **BIASED) >> Sin() >> Conv((2,)) >> Gelu()
        >> Conv((3,), padding="VALID") >> Erf() >> Conv((3,)) >> Relu() >> GlobalSumPool()
        >> Readout(),
        (9, 2),
    ),
    "flat": (
        Conv((3, 2), padding="VALID", **BIASED) >> Erf() >> Dense(**BIASED) >> Gelu() >> Flatten()
        >> Dense(**BIASED) >> Readout(),
        (5, 4, 3),
    ),
    "without a function": (Conv((2, 2)) >> Conv((2, 2)) >> Erf() >> END, (4, 4, 1)),
    "three axes": (Conv((2, 3, 1)) >> Erf() >> Identity() >> Conv((1, 2, 2)) >> END, (3, 4, 3, 2)),
    "vectors read as images": (Unflatten((4, 4), 2) >> BLOCK >> END, (32,)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(displacements, "LEAST", 0)


def some(count: int, shape: tuple[int, ...], seed: int = 0):
    return np.random.default_rng(seed).normal(size=(count, *shape))


def by_rules(monkeypatch, *asked, **settings):
    with monkeypatch.context() as own:
        own.setattr(matrix, "FAST", ())
        return kernel_matrix(*asked, **settings)


@pytest.mark.parametrize("name", cases_of(NETWORKS, ("all paddings",)))
def test_it_is_at_the_rules(name, monkeypatch):
    net, shape = NETWORKS[name]
    x, y = some(11, shape), some(3, shape, 1)  # more and fewer than lanes
    for sides in ((x,), (y, x)):
        assert explain(net, *sides).path == "displacements"
        for found, wanted in zip(
            kernel_matrix(net, *sides), by_rules(monkeypatch, net, *sides), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max())
    single = kernel_matrix(net, x, which="ntk", precision="float32")
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, kernel_matrix(net, x).ntk.astype(np.float32))


def test_coinciding_patches_of_kinks(monkeypatch):
    """Where two positions see the same, the angle between them is 0, not a root of rounding."""
    net = Conv() >> Relu() >> Conv() >> Relu() >> END
    x = some(4, (8, 8, 3))
    x[1, :5], x[2], x[3] = 0.7, x[0], 0.0
    monkeypatch.setattr(matrix, "FAST", (displacements.DisplacementsPath,))
    found = kernel_matrix(net, x)
    for one, other in zip(found, by_rules(monkeypatch, net, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert found.ntk[0, 0] == pytest.approx(found.ntk[0, 2], rel=1e-12)


@pytest.mark.parametrize(
    "net, shape, words",
    [
        (Dense() >> Erf() >> Readout(), (3,), "inputs are vectors"),
        (Conv() >> Tanh() >> END, (4, 4, 1), "Tanh() has no closed form"),
        (Conv(strides=(2, 2)) >> Erf() >> END, (4, 4, 1), "has strides"),
        (BLOCK >> AveragePool() >> END, (4, 4, 1), "AveragePool() is none of its layers"),
        (
            Conv((3, 3), padding="VALID") >> Erf() >> Conv((2, 2), padding="CIRCULAR") >> END,
            (5, 5, 1), "others have cut",
        ),
        (Conv((4,), padding="CIRCULAR") >> Erf() >> END, (3, 1), "more than once"),
    ],
)  # fmt: skip
def test_reasons(net, shape, words):
    found = dict(explain(net, some(3, shape)).others)
    assert words in found["displacements"]


def test_little_is_not_worth_it(monkeypatch):
    monkeypatch.setattr(displacements, "LEAST", 2**26)
    net, shape = NETWORKS["repeated"]
    assert dict(explain(net, some(3, shape)).others)["displacements"] == "there is too little to do"
