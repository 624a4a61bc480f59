"""Moments of grids: the two types agree, tiles agree, and what does not fit is refused."""

from typing import Any

import numpy as np
import pytest
from compositions import refuses
from slowly import cases_of

from widthwise.kernels import kernel_diagonal, kernel_matrix, rules
from widthwise.network import (
    AbstractLayer,
    AveragePool,
    Concatenate,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Identity,
    LayerNorm,
    PositionMatrix,
    Product,
    Readout,
    Relu,
    Reshape,
    Resize,
    SelfAttention,
    Unflatten,
    begin,
)
from widthwise.network.signal import Pairs

FLAT = {
    "convolution": Conv() >> Relu() >> Conv((2, 2), strides=(2, 1), padding="VALID") >> Flatten(),
    "transposed": ConvTranspose(strides=(2, 1)) >> Flatten() >> Relu(),
    "circular": Conv(padding="CIRCULAR") >> LayerNorm(axes=(0, 1)) >> Relu() >> Flatten(),
    "cut": Conv() >> Crop(((1, None, 1), 2)) >> LayerNorm() >> Relu() >> Flatten(),
    "side by side": Conv() >> Concatenate((Relu(), Identity())) >> Flatten(),
    "multiplied": Conv() >> Product((Relu(), Conv())) >> Dropout() >> Flatten(),
    "added": Conv() >> (Identity() + (Relu() >> Conv())) >> Dense() >> Relu() >> Flatten(),
}
POOLED = Conv() >> Relu() >> AveragePool() >> SelfAttention() >> Relu() >> GlobalAveragePool()


@pytest.mark.parametrize("name", cases_of(FLAT, ("convolution", "multiplied", "added")))
@pytest.mark.parametrize("others", [pytest.param(False, marks=pytest.mark.slow), True])
def test_all_pairs_hold_the_same_pairs(name, others, rng, monkeypatch):
    net = FLAT[name] >> Readout()
    x = rng.normal(size=(3, 4, 5, 2))
    other = rng.normal(size=(2, 4, 5, 2)) if others else None
    few = kernel_matrix(net, x, other)
    monkeypatch.setattr(begin, "SameGrid", begin.PairGrid)
    jitted: Any = rules._through
    jitted.clear_cache()
    for one, two in zip(few, kernel_matrix(net, x, other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)
    jitted.clear_cache()


@pytest.mark.slow
@pytest.mark.parametrize("net", [FLAT["convolution"], POOLED], ids=["flat", "pooled"])
def test_tiles_and_diagonals_agree(net, rng, monkeypatch):
    net, x = net >> Readout(), rng.normal(size=(5, 4, 6, 2))
    whole = kernel_matrix(net, x)
    apart = kernel_matrix(net, x[:2], x[2:])
    alone = kernel_diagonal(net, x)
    monkeypatch.setattr(rules, "ENTRIES", 4 * 24)
    assert rules.tile_rows(net, x.shape[1:]) < 5
    for kind, tiled in zip(("nngp", "ntk"), kernel_matrix(net, x), strict=True):
        full = getattr(whole, kind)
        np.testing.assert_allclose(tiled, full, rtol=1e-13)
        np.testing.assert_allclose(getattr(apart, kind), full[:2, 2:], rtol=1e-13)
        np.testing.assert_allclose(getattr(alone, kind), np.diag(full), rtol=1e-13)
        assert np.array_equal(full, full.T) and np.linalg.eigvalsh(full).min() > 0


def test_only_what_the_end_needs_is_computed():
    assert (Conv() >> Relu() >> Flatten() >> Readout()).needs(Pairs.SAME) is Pairs.SAME
    assert POOLED.needs(Pairs.SAME) is Pairs.ALL
    both = (Conv() >> Flatten()) + (Conv() >> GlobalAveragePool() >> Dense(times=2))
    assert both.needs(Pairs.SAME) is Pairs.ALL


def test_moving_the_image_moves_nothing_after_pooling_of_a_circle(rng):
    net = Conv(padding="CIRCULAR") >> Relu() >> Conv(padding="CIRCULAR") >> GlobalAveragePool()
    x = rng.normal(size=(3, 4, 5, 2))
    moved = np.roll(x, (1, 2), axis=(1, 2))
    for one, two in zip(kernel_matrix(net, x), kernel_matrix(net, moved, x), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_rows_read_as_grids(rng):
    x = rng.normal(size=(3, 24))
    net = Conv() >> Relu() >> Flatten() >> Readout()
    images = x.reshape(3, 4, 3, 2)
    last, first = Unflatten((4, 3), channels=2), Unflatten((4, 3), 2, channels_first=True)
    for net_of, given in ((last, x), (first, np.moveaxis(images, 3, 1).reshape(3, 24))):
        for one, two in zip(
            kernel_matrix(net_of >> net, given), kernel_matrix(net, images), strict=True
        ):
            np.testing.assert_allclose(one, two, rtol=1e-14)


COMPOSED = {
    "pooling a vector": (lambda: Conv() >> Flatten() >> AveragePool(), "one vector arrives"),
    "a convolution of a vector": (lambda: Conv() >> Flatten() >> Conv(), "has 2 axes"),
    "a readout of a grid": (lambda: Conv() >> Relu() >> Readout(), "reads one vector"),
    "reading what was read": (lambda: Conv() >> Unflatten(), "put it first"),
    "two ranks": (lambda: Conv() >> Conv((3,)), "has 2 axes|has 1 axes"),
    "grids of two shapes": (
        lambda: Unflatten() >> (Conv() + Conv(padding="VALID")), "equal grids",
    ),
    "a filter that does not fit": (
        lambda: Unflatten((2, 2)) >> Conv(padding="VALID"), "does not fit",
    ),
    "no position left": (lambda: Unflatten() >> Crop(((9, None, 1), 0)), "leaves no position"),
    "a matrix that does not fit": (
        lambda: Unflatten() >> PositionMatrix(((1.0,),)), "does not fit",
    ),
    "branches that are not independent": (
        lambda: Dense() >> Product((Relu(), Identity())), "not independent",
    ),
    "a nonlinearity of a nonlinearity": (lambda: Conv() >> Relu() >> Relu(), "not Gaussian"),
    "dropping data": (lambda: Unflatten() >> Dropout() >> Conv(), "stands on the data"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_refused_when_composed(name, unchecked):
    refuses(*COMPOSED[name])


SETTINGS: list[tuple[Any, dict[str, Any]]] = [
    (Conv, {"filter_shape": (0, 3)}),
    (Conv, {"filter_shape": 3}),
    (Conv, {"filter_shape": (1, 1, 1, 1)}),
    (Conv, {"padding": "REFLECT"}),
    (Conv, {"strides": (1,)}),
    (Resize, {"method": "best"}),
    (Reshape, {"shape": (0,)}),
    (Dropout, {"keep": 1.5}),
    (LayerNorm, {"axes": (5,)}),
]


@pytest.mark.parametrize("kind, given", SETTINGS)
def test_settings_are_refused(kind, given, unchecked):
    with pytest.raises((ValueError, TypeError), match="give|has more than"):
        kind(**given).signal(Unflatten().signal(begin.Signal()))


def test_refused_when_it_meets_data(unchecked):
    with pytest.raises(ValueError, match="leaves a grid"):
        kernel_matrix(Conv(), np.ones((2, 3, 3, 1)))
    with pytest.raises(ValueError, match="rows of 64 numbers"):
        kernel_matrix(Unflatten() >> Conv() >> Flatten(), np.ones((2, 63)))
    with pytest.raises(ValueError, match="one vector"):
        kernel_matrix(AveragePool() >> Flatten(), np.ones((2, 3)))
    assert isinstance(POOLED, AbstractLayer)
