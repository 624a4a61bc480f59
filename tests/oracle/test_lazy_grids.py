"""Kernels of images and sequences against reference values of another implementation.

Arrays as in lazy/manifest.json: x1, x2 with positions and features last, nngp_ab and ntk_ab; good
to 1e-8.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slowly import cases_of

from widthwise.kernels import kernel_matrix
from widthwise.network import (
    Aggregate,
    AveragePool,
    Concatenate,
    Conv,
    ConvLocal,
    ConvTranspose,
    Crop,
    Dense,
    Dropout,
    Erf,
    Flatten,
    GlobalAveragePool,
    Graph,
    LayerNorm,
    Masked,
    MultiHeadAttention,
    PositionMatrix,
    Readout,
    Relu,
    Resize,
    SelfAttention,
    SumPool,
)
from widthwise.scaling import ABC

FOLDER = Path(__file__).parent / "lazy_grids"


def made(kind: Any, weight: float, bias: float = 0.1, *shape, **settings):
    """weight and bias are standard deviations; a bias enters as bias * N(0, 1), and is trained."""
    return kind(
        *shape, weight_variance=weight**2, bias_variance=bias**2, bias_multiplier=bias, **settings
    )


def conv(filter_shape=(3, 3), weight=1.5, bias=0.1, kind: Any = Conv, **settings):
    return made(kind, weight, bias, filter_shape, **settings)


def end(bias=0.0):
    return made(Readout, 1.0, bias)


def attention(kind: Any = SelfAttention, **settings):
    return kind(value_variance=1.1**2, out_variance=0.9**2, bias_variance=0.01, **settings)


FLAT, POOLED = Flatten() >> end(), GlobalAveragePool() >> end()
SCORES = 1.2 * 0.8
MIXED = ((1.0, -0.5), (0.0, 2.0), (0.3, 0.3), (0.0, 1.0), (-1.0, 0.0))
CASES = {
    "conv_same_flatten": conv() >> Relu() >> conv() >> Relu() >> FLAT,
    "conv_valid_gap": (
        conv(padding="VALID") >> Relu() >> conv(padding="VALID") >> Erf() >> POOLED
    ),
    "conv_circular_flatten": (
        conv(padding="CIRCULAR") >> Relu() >> conv(padding="CIRCULAR") >> Relu() >> FLAT
    ),
    "conv_rect_mixed_flatten": (
        conv((3, 2), strides=(1, 2)) >> Relu() >> conv((2, 3), padding="VALID") >> Erf()
        >> Flatten() >> end(0.2)
    ),
    "conv_1d_gap": conv((3,)) >> Relu() >> conv((4,), strides=(2,)) >> Relu() >> POOLED,
    "conv_nobias_1x1": conv((1, 1), 1.4, 0.0) >> Relu() >> POOLED,
    "conv_dense_perpixel": conv() >> Relu() >> made(Dense, 1.2) >> Relu() >> POOLED,
    "convtranspose_same_s2": (
        conv(weight=1.4, kind=ConvTranspose, strides=(2, 2)) >> Relu() >> POOLED
    ),
    "convlocal_same_flatten": conv(weight=1.4, kind=ConvLocal) >> Relu() >> FLAT,
    "avgpool_valid": (
        conv() >> Relu() >> AveragePool() >> conv() >> Relu() >> AveragePool() >> FLAT
    ),
    "avgpool_same_noedges": (
        conv() >> Relu() >> AveragePool((3, 3), strides=(2, 2), padding="SAME")
        >> conv() >> Relu() >> POOLED
    ),
    "sumpool_same": (
        conv(weight=0.7) >> Relu() >> SumPool(padding="SAME") >> conv(weight=0.7) >> Relu() >> FLAT
    ),
    "res_concat_fc": (
        made(Dense, 1.5)
        >> Concatenate((Relu() >> made(Dense, 1.3, 0.2, 2), Erf() >> made(Dense, 0.6, 0.4)))
        >> end()
    ),
    "layernorm_fc": (
        made(Dense, 1.5) >> LayerNorm() >> Relu() >> made(Dense, 1.5) >> LayerNorm() >> Erf()
        >> end()
    ),
    "layernorm_conv_channel": (
        conv() >> LayerNorm() >> Relu() >> conv() >> LayerNorm() >> Relu() >> POOLED
    ),
    "dropout_train_fc": (
        made(Dense, 1.5) >> Relu() >> Dropout(0.7) >> made(Dense, 1.5) >> Relu() >> Dropout(0.5)
        >> end()
    ),
    "attn_linear_softmax": (
        conv((3,)) >> Relu() >> attention(score_variance=SCORES) >> Relu() >> POOLED
    ),
    "attn_linear_identity": (
        conv((3,)) >> Relu() >> attention(score_variance=SCORES, mechanism="identity") >> Relu()
        >> POOLED
    ),
    "attn_sqrt_identity": (
        conv((3,)) >> Relu()
        >> attention(MultiHeadAttention, query_variance=0.8**2, key_variance=1.2**2)
        >> Relu() >> FLAT
    ),
    "attn_linear_softmax_posemb_sum": (
        SelfAttention(position_variance=0.7**2, bias_variance=0.01) >> Relu() >> POOLED
    ),
    "index_crop": (
        conv() >> Relu() >> Crop(((1, 6, 2), (None, None, -1))) >> conv() >> Relu() >> POOLED
    ),
    "resize_nearest_up": (
        conv() >> Relu() >> Resize((9, 9), method="nearest") >> conv() >> Relu() >> POOLED
    ),
    "dotgeneral_mix_rows": conv() >> Relu() >> PositionMatrix(MIXED) >> POOLED,
}  # fmt: skip


@pytest.mark.parametrize("name", cases_of(CASES, [*CASES][::2]))
def test_kernels(name):
    check(CASES[name], np.load(FOLDER / f"{name}.npz"))


MASK = Masked(missing=1000.0)
KNOWN = {
    "mask_fc_gap": MASK >> made(Dense, 1.5) >> Relu() >> POOLED,
    "mask_conv_gap": MASK >> conv((3,)) >> Relu() >> conv((3,)) >> Erf() >> POOLED,
}


@pytest.mark.parametrize("name", KNOWN)
def test_sequences_of_various_lengths(name):
    check(KNOWN[name], np.load(FOLDER / f"{name}.npz"))


def test_graphs():
    stored = dict(np.load(FOLDER / "aggregate_dense_gap.npz"))
    for one in "12":  # links are the last numbers of each node
        nodes, links = stored[f"x{one}"], stored[f"pattern{one}"]
        stored[f"x{one}"] = np.concatenate([nodes, links], axis=2)
    step = made(Dense, 1.5) >> Relu() >> Aggregate()
    check(Graph() >> step >> step >> POOLED, stored)


def check(net, stored, **settings):
    """Both sides at once, so that one program is compiled."""
    whole = kernel_matrix(net, np.concatenate([stored["x1"], stored["x2"]]), **settings)
    count = len(stored["x1"])
    parts = {"1": slice(0, count), "2": slice(count, None)}
    for one, other in ("11", "12", "22"):
        for kind in ("nngp", "ntk"):
            mine = getattr(whole, kind)[parts[one], parts[other]]
            np.testing.assert_allclose(mine, stored[f"{kind}_{one}{other}"], rtol=1e-8)


@pytest.mark.parametrize("name", ["conv_1d_gap", "res_concat_fc"])
def test_kernels_of_one_side_against_the_other(name):
    stored = np.load(FOLDER / f"{name}.npz")
    found = kernel_matrix(CASES[name], stored["x1"], stored["x2"])
    np.testing.assert_allclose(found.nngp, stored["nngp_12"], rtol=1e-8)
    np.testing.assert_allclose(found.ntk, stored["ntk_12"], rtol=1e-8)


def test_standard_parametrization_with_its_widths():
    """The widths of 24 and 16 are 3 and 2 times 8, and all weights are stepped alike."""

    def layer(weight, bias, kind: Any = Conv, *shape, **settings):
        return kind(
            *shape, weight_variance=weight**2, bias_variance=bias**2,
            bias_multiplier=float(bias > 0), **settings,
        )  # fmt: skip

    net = (
        layer(1.4, 0.1, Conv, times=3) >> Relu()
        >> layer(1.3, 0.0, Conv, times=2, padding="VALID") >> Relu()
        >> Flatten() >> layer(1.0, 0.1, Readout)
    )  # fmt: skip
    scaling = ABC(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(0, 0, 0))
    check(net, np.load(FOLDER / "std_conv_flatten.npz"), scaling=scaling, width=8)


def test_every_stored_case_is_tested():
    assert {path.stem for path in FOLDER.glob("*.npz")} == {
        *CASES,
        *KNOWN,
        "aggregate_dense_gap",
        "std_conv_flatten",
    }
