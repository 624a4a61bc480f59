"""Missing positions and graphs: filling up changes nothing, and links are matrices."""

import jax.numpy as jnp
import numpy as np
import pytest
from compositions import drawn, refuses
from slowly import cases_of

from widthwise.finite import FiniteNetwork
from widthwise.kernels import kernel_diagonal, kernel_matrix
from widthwise.network import (
    Aggregate,
    AveragePool,
    Concatenate,
    ConcatenatePositions,
    Conv,
    ConvLocal,
    ConvTranspose,
    Cos,
    Crop,
    Dense,
    Erf,
    Flatten,
    GlobalAveragePool,
    GlobalSumPool,
    Graph,
    Identity,
    LayerNorm,
    Masked,
    MultiHeadAttention,
    PositionEmbedding,
    PositionMatrix,
    Product,
    Readout,
    Relu,
    Resize,
    SelfAttention,
    SumPool,
    Unflatten,
)
from widthwise.network.signal import Signal
from widthwise.scaling import NTK

CONV = Conv((3,), bias_variance=0.3)
END = GlobalAveragePool() >> Readout()
FILLED = {
    "dense": Dense(bias_variance=0.3) >> Cos() >> END,
    "sum": Dense(bias_variance=0.3) >> Cos() >> GlobalSumPool() >> Readout(),
    "convolutions": CONV >> Relu() >> CONV >> Erf() >> END,
    "even filter": Conv((3,), strides=(2,)) >> Cos() >> Conv((1,)) >> END,
    "windows": CONV >> Cos() >> AveragePool((2,), edges=True) >> CONV >> Relu() >> END,
    "sums": CONV >> Cos() >> SumPool((2,)) >> CONV >> Relu() >> END,
    "normalised": CONV >> Cos() >> LayerNorm(axes=(0,)) >> CONV >> LayerNorm(axes=(0,)) >> END,
    "attention": CONV >> Cos() >> SelfAttention() >> Relu() >> END,
    "positions": SelfAttention(position_variance=0.5, position_decay=0.3) >> Relu() >> END,
    "identity scores": CONV >> Cos() >> SelfAttention(mechanism="identity") >> END,
    "heads": CONV >> Cos() >> MultiHeadAttention() >> Relu() >> END,
    "residual": CONV >> (Identity() + (Cos() >> CONV)) >> Cos() >> END,
    "beside": CONV >> Concatenate((Cos(), PositionEmbedding())) >> END,
    "product": CONV >> Product((Cos(), Conv((1,)))) >> END,
    "local": ConvLocal((1,), bias_variance=0.1) >> Cos() >> END,
    "cut": CONV >> Cos() >> Crop(((1, None, 1),)) >> END,
    "transposed": ConvTranspose((2,), strides=(2,), bias_variance=0.2) >> Cos() >> END,
    "two grids": ConcatenatePositions((CONV, Conv((3,)))) >> Cos() >> END,
}


ALWAYS = ("dense",)
CROSSED = ("windows", "normalised", "attention", "two grids")


@pytest.mark.parametrize("name", cases_of(FILLED, ALWAYS))
def test_a_sequence_is_what_it_is_when_filled_up(name, rng, getkey):
    net = FILLED[name]
    short = rng.normal(size=(3, 4, 2))
    filled = np.concatenate([short, np.zeros((3, 4, 2))], axis=1)
    others = rng.normal(size=(2, 8, 2))
    others[0, 6:] = 0.0
    masked = Masked() >> net
    mixed = kernel_matrix(masked, np.concatenate([filled, others]))
    for one, two in zip(kernel_matrix(net, short), mixed, strict=True):
        np.testing.assert_allclose(two[:3, :3], one, rtol=1e-11, atol=1e-13)
        assert np.linalg.eigvalsh(two).min() > -1e-12
    if name in CROSSED:
        for one, two in zip(kernel_matrix(masked, filled, others), mixed, strict=True):
            np.testing.assert_allclose(two[:3, 3:], one, rtol=1e-11, atol=1e-13)
    if name in ("positions", "beside", "local"):
        return  # these have weights for each position
    small, large = (FiniteNetwork(n, 16, (s, 2), 3, NTK()) for n, s in ((net, 4), (masked, 8)))
    parameters = small.draw(getkey())
    found = large.apply((None, *parameters), jnp.asarray(filled, "float32"))
    np.testing.assert_allclose(found, small.apply(parameters, jnp.asarray(short, "float32")),
                               atol=2e-5)  # fmt: skip


MISSING = {
    **{name: FILLED[name] for name in ("windows", "normalised", "attention", "beside", "heads")},
    "flat": CONV >> Cos() >> Flatten() >> Readout(),
    "resized": CONV >> Cos() >> Resize((4,)) >> CONV >> Cos() >> Flatten() >> Readout(),
    "whole windows": CONV >> Cos() >> AveragePool((2,), padding="SAME") >> Flatten() >> Readout(),
    "a sum of branches": CONV >> ((Cos() >> CONV) + Conv((5,))) >> Cos() >> Flatten() >> Readout(),
}


QUICK = ("windows",)


@pytest.mark.parametrize("name", cases_of(MISSING, QUICK))
def test_wide_networks_agree(name, rng, getkey):
    x = rng.normal(size=(3, 6, 2))
    x[0, 4:], x[1, 1], x[2, 5:] = 0.0, 0.0, 0.0
    net = Masked() >> MISSING[name]
    check_against_wide_networks(net, x, getkey())


def check_against_wide_networks(net, x, key):
    limit = kernel_matrix(net, x)
    outputs, tangent = drawn(net, x, 128, 400, key)
    outputs = outputs[:, :, 0]
    size = np.sqrt(np.outer(*2 * [np.diag(limit.nngp)]))
    products = outputs[:, :, None] * outputs[:, None, :] / size
    noise = products.std(axis=0) / 20
    assert np.all(np.abs(products.mean(axis=0) - limit.nngp / size) < 4.5 * noise + 0.02)
    size = np.sqrt(np.outer(*2 * [np.diag(limit.ntk)]))
    noise = tangent.std(axis=0) / 20 / size
    assert np.all(np.abs(tangent.mean(axis=0) - limit.ntk) / size < 4.5 * noise + 0.03)


def graphs(rng, count, nodes=5, size=2):
    links = rng.normal(size=(count, nodes, nodes)) * (rng.random((count, nodes, nodes)) < 0.6)
    return np.concatenate([rng.normal(size=(count, nodes, size)), links], axis=2)


STEP = Dense(bias_variance=0.2) >> Relu() >> Aggregate()


def test_graphs_against_wide_networks(rng, getkey):
    check_against_wide_networks(Graph() >> STEP >> STEP >> END, graphs(rng, 3), getkey())


def test_equal_graphs_are_a_matrix_over_positions(rng):
    x = graphs(rng, 4)
    links = x[0, :, 2:]
    x[:, :, 2:] = links
    matrix = PositionMatrix(tuple(map(tuple, links.tolist())))
    plain = Dense(bias_variance=0.2) >> Relu() >> matrix >> Dense() >> Erf() >> END
    linked = Graph() >> STEP >> Dense() >> Erf() >> END
    for one, two in zip(kernel_matrix(plain, x[:, :, :2]), kernel_matrix(linked, x), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-12)


@pytest.mark.slow
def test_the_order_of_nodes_and_missing_nodes_change_nothing(rng):
    net, x = Graph() >> Masked() >> STEP >> STEP >> END, graphs(rng, 3)
    wanted, order = kernel_matrix(net, x), np.array([3, 1, 4, 0, 2])
    moved = np.concatenate([x[:, order, :2], x[:, order][:, :, 2 + order]], axis=2)
    larger = np.zeros((3, 7, 9))
    larger[:, :5, :2], larger[:, :5, 2:7] = x[:, :, :2], x[:, :, 2:]
    for other in (moved, larger):
        for one, two in zip(wanted, kernel_matrix(net, other), strict=True):
            np.testing.assert_allclose(two, one, rtol=1e-12)
    alone = kernel_diagonal(net, x)
    np.testing.assert_allclose(alone.ntk, np.diag(wanted.ntk), rtol=1e-12)


@pytest.mark.slow
def test_images_with_missing_parts(rng, getkey):
    x = rng.normal(size=(3, 4, 4, 2))
    x[0, 2:] = x[1, :, 3] = 0.0
    net = Masked() >> Conv(bias_variance=0.2) >> Cos() >> AveragePool(edges=True) >> END
    check_against_wide_networks(net, x, getkey())


REFUSED = {
    "a mask behind a layer": (lambda: Conv() >> Masked(), "put it first"),
    "a graph in a branch": (lambda: Identity() + (Graph() >> Dense()), "put it first"),
    "no graph": (lambda: Unflatten() >> Aggregate(), "put Graph\\(\\) first"),
    "neighbours by order": (
        lambda: Unflatten((3,), channels=5) >> Graph() >> Conv((3,)), "use Aggregate",
    ),
    "too few numbers": (
        lambda: Unflatten((3,), channels=3) >> Graph(), "more than 3 numbers",
    ),
    "a mask of a vector": (lambda: Unflatten() >> Flatten() >> Masked(), "put it first"),
    "grids that do not fit": (
        lambda: ConcatenatePositions((Conv(padding="VALID"), Conv())).signal(
            Unflatten((4, 5)).signal(ANY)
        ), "equal grids",
    ),
    "no such axis": (lambda: ConcatenatePositions((Conv(), Conv()), axis=2), "give an axis"),
    "dependent grids": (lambda: ConcatenatePositions((Relu(), Identity())), "not independent"),
}  # fmt: skip
ANY = Signal()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_when_composed(name, unchecked):
    refuses(*REFUSED[name])


def test_rows_without_positions_are_named(rng):
    x = rng.normal(size=(3, 4, 2))
    x[1] = 0.0
    with pytest.raises(ValueError, match="Row 1 has no position: all"):
        kernel_matrix(Masked() >> CONV >> END, x)
    x = rng.normal(size=(3, 4, 2))
    x[2, 1:3] = 0.0
    with pytest.raises(ValueError, match="Row 2 has no position behind Conv"):
        kernel_matrix(Masked() >> Conv((3,), padding="VALID") >> END, x[:1], x)
