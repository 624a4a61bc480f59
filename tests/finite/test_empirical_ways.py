"""Three ways to one empirical kernel: equal for every kind of function, each counted."""

import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.finite import FiniteNetwork, empirical_kernel, explain_kernel
from widthwise.finite.empirical import choice
from widthwise.finite.empirical.sites import find_sites
from widthwise.finite.empirical.trace import Program
from widthwise.network import (
    AveragePool,
    Conv,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    Readout,
    Relu,
    SelfAttention,
    Unflatten,
)
from widthwise.scaling import NTK, MuP
from widthwise.solve import float64

WAYS: Any = ("contraction", "products", "structured")


class Case(NamedTuple):
    """A function, shapes of its parameters and of a row, and how many weights have a rule."""

    function: Any
    shapes: Any
    row: tuple[int, ...]
    ruled: int


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def mlp(p, x):
    h = 1.5 / np.sqrt(6) * (x @ p["w1"]) + 0.1 * p["b1"]
    return jnp.tanh(h) @ (p["w2"] / 2) - p["b2"]


def cnn(p, x):
    h = jax.lax.conv_general_dilated(
        x, p["w1"], (2, 1), "SAME", rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jax.nn.relu(h + p["b1"])
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 2, 1), "SAME")
    h = jax.lax.conv_general_dilated(
        h, p["w2"], (1, 1), ((0, 1), (2, 0)), feature_group_count=2,
        dimension_numbers=("NHWC", "OIHW", "NCHW"),
    )  # fmt: skip
    return jnp.tanh(h).mean(axis=(2, 3)) @ p["w3"]


def normalised(p, x):
    h = x @ p["w1"]
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-3)
    return jax.nn.gelu(h * p["gain"] + p["b"]) @ p["w2"]


def attention(p, x):
    q, k, v = (jnp.einsum("btd,dhe->bhte", x, p[name]) for name in ("q", "k", "v"))
    scores = jax.nn.softmax(q @ k.swapaxes(2, 3) / 2, axis=-1)
    mixed = jnp.einsum("bhts,bhse->bthe", scores, v)
    return jnp.einsum("bthe,heo->bo", mixed, p["o"])


def tied(p, x):
    return jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"].T) @ p["w"] @ p["v"]


def looped(p, x):
    h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])
    h = jax.lax.fori_loop(0, 2, lambda i, h: jnp.sin(h * p["s"]), h)
    return h @ p["v"]


def nested(p, x):
    @jax.checkpoint
    def inner(w, b, x):
        return jax.jit(lambda w: jnp.reshape(w, (6, 4)))(w), b

    @jax.jit
    def layer(w, b, x):
        w, b = inner(w, b, x)
        return x @ w + b

    h = jax.nn.silu(layer(p["a"]["kernel"], p["a"]["bias"], x))
    return jax.vmap(lambda row: jax.nn.relu(row @ p["b"]["kernel"]))(h)


def embedded(p, x):
    return jnp.tanh(p["table"][x.astype(int)].sum(axis=1)) @ p["v"]


def scaled(p, x):
    return p["s"] * x @ (p["w"] * p["t"]) + p["t"]


def grouped(p, x):
    return jnp.einsum("bgi,gio->bgo", x, p["w"]).sum(axis=1) @ (p["v"] @ p["u"])


def custom(p, x):
    @jax.custom_jvp
    def doubled(w):
        return w

    doubled.defjvp(lambda primals, tangents: (primals[0], 2 * tangents[0]))
    return x @ doubled(p["w"]) + x @ p["v"]


CASES = {
    "mlp": Case(mlp, {"w1": (6, 4), "b1": (4,), "w2": (4, 3), "b2": (3,)}, (6,), 4),
    "cnn": Case(cnn, {"w1": (3, 2, 2, 4), "b1": (4,), "w2": (6, 2, 2, 2), "w3": (6, 3)},
                (5, 4, 2), 4),
    "normalised": Case(normalised, {"w1": (6, 4), "gain": (4,), "b": (4,), "w2": (4, 2)}, (6,), 3),
    "attention": Case(attention, {"q": (4, 2, 3), "k": (4, 2, 3), "v": (4, 2, 3), "o": (2, 3, 2)},
                      (3, 4), 4),
    "tied": Case(tied, {"w": (6, 4), "v": (4, 2)}, (6,), 1),
    "looped": Case(looped, {"w": (3, 4, 4), "s": (4,), "v": (4, 2)}, (4,), 1),
    "nested": Case(nested, {"a": {"kernel": (24,), "bias": (4,)}, "b": {"kernel": (4, 2)}},
                   (6,), 3),
    "embedded": Case(embedded, {"table": (5, 4), "v": (4, 2)}, (3,), 1),
    "scaled": Case(scaled, {"w": (4, 2), "s": (), "t": ()}, (4,), 1),
    "grouped": Case(grouped, {"w": (3, 4, 5), "v": (5, 4), "u": (4, 2)}, (3, 4), 3),
    "custom": Case(custom, {"w": (4, 2), "v": (4, 2)}, (4,), 1),
    "unused": Case(lambda p, x: x @ p["w"], {"w": (4, 2), "idle": (3,)}, (4,), 1),
}  # fmt: skip


@pytest.fixture(params=CASES, ids=str)
def problem(request):
    case = CASES[request.param]
    with float64():
        leaves, tree = jax.tree.flatten(case.shapes, is_leaf=lambda x: isinstance(x, tuple))
        drawn = [jnp.asarray(normal(seed, shape)) for seed, shape in enumerate(leaves)]
        x1, x2 = (jnp.asarray(np.abs(normal(s, (3, *case.row)))) for s in (98, 99))
        yield case, jax.tree.unflatten(tree, drawn), x1, x2


def kernel(case, parameters, x1, x2=None, **settings) -> np.ndarray:
    return empirical_kernel(case.function, parameters, x1, x2, block=3, **settings)


def test_ways_agree(problem):
    wanted, *found = (kernel(*problem, outputs="all", way=way) for way in WAYS)
    for other, way in zip(found, WAYS[1:], strict=True):
        np.testing.assert_allclose(other, wanted, rtol=1e-10, atol=1e-11, err_msg=way)


@pytest.mark.parametrize(
    "problem, way",
    [*(("mlp", way) for way in WAYS), ("attention", "structured")],
    indirect=["problem"],
)
def test_fewer_pairs_of_outputs(problem, way):
    each = np.diagonal(kernel(*problem, outputs="all", way="structured"), axis1=2, axis2=3)
    for outputs, wanted in (("each", each), ("mean", each.mean(axis=2))):
        found = kernel(*problem, outputs=outputs, way=way)
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("problem", ["mlp"], indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_rates_weigh_the_parameters(problem, way):
    case, parameters, x1, x2 = problem
    rates = {"w1": 2.0, "b1": jnp.arange(4.0), "w2": jnp.asarray(normal(5, (4, 3))), "b2": 0.0}
    found = kernel(*problem, outputs="all", way=way, rates=rates)
    jacobian = jax.jit(jax.jacrev(case.function))
    left, right = (jacobian(parameters, x) for x in (x1, x2))
    wanted = 0.0
    for name, rate in rates.items():
        a, b = (np.asarray(j[name]) for j in (left, right))
        a, b = ((a * np.asarray(rate)).reshape(3, 3, -1), b.reshape(3, 3, -1))
        wanted += np.einsum("nkp,mlp->nmkl", a, b)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_rules_find_their_weights(problem):
    case, parameters, x1, _ = problem

    def one(leaves, row):
        tree = jax.tree.structure(parameters)
        return case.function(jax.tree.unflatten(tree, leaves), row[None])[0]

    leaves = jax.tree.leaves(parameters)
    sites, _ = find_sites(Program.trace(one, leaves, x1[0]), len(leaves))
    assert len(sites) == case.ruled


GRID = Unflatten((4, 4), 2) >> Conv((2, 3), (1, 2)) >> Relu() >> AveragePool() >> Flatten()
SEQUENCE = Unflatten((5,), 3) >> SelfAttention() >> LayerNorm() >> Relu()
NETWORKS = {
    "grid": (GRID >> Readout(), 32, NTK()),
    "sequence": (SEQUENCE >> GlobalAveragePool() >> Readout(), 15, MuP()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_our_networks(name):
    network, n_inputs, scaling = NETWORKS[name]
    net = FiniteNetwork(network, 8, n_inputs, 2, scaling)
    with float64():
        weights, x = net.draw(jax.random.key(0), "float64"), jnp.asarray(normal(1, (4, n_inputs)))
        wanted, *found = (
            empirical_kernel(net.apply, weights, x, outputs="all", way=way) for way in WAYS
        )
    for other in found:
        np.testing.assert_allclose(other, wanted, rtol=1e-10, atol=1e-11)


def test_the_count_is_exact_and_explained():
    case, x = CASES["mlp"], jnp.ones((20, 6))
    parameters = {name: jnp.ones(shape) for name, shape in case.shapes.items()}
    explained = explain_kernel(case.function, parameters, x, outputs="all", block=10)
    contraction, products, structured = explained.counts
    # three tiles of ten rows, three outputs, 43 parameters, and what single entries take
    least = 3 * 2 * (10 * 3) ** 2 * 43
    assert least < contraction.flops < 2 * least
    assert structured.flops < min(contraction.flops, products.flops)
    assert explained.chosen == "structured"
    assert str(explained).splitlines()[-1] == explained.reason
    assert [line.split()[0] for line in str(explained).splitlines()[1:4]] == list(WAYS)


def test_what_does_not_fit_is_not_chosen(monkeypatch):
    def function(w, x):
        return x[:, :2] * (w**2).sum()

    arguments = (function, jnp.ones(40), jnp.ones((9, 2)))
    counts = {one.way: one for one in explain_kernel(*arguments, outputs="all").counts}
    room = counts["products"].bytes
    assert room < counts["contraction"].bytes
    monkeypatch.setattr(choice, "free_memory", lambda: room)
    explained = explain_kernel(*arguments, outputs="all")
    assert explained.chosen == "products" and "memory" in explained.reason
    monkeypatch.setattr(choice, "free_memory", lambda: 1)
    assert "smaller block" in explain_kernel(*arguments, outputs="all").reason


def test_programs_are_kept():
    traced = []

    def function(w, x):
        traced.append(x.shape)
        return x @ w

    first = empirical_kernel(function, jnp.ones((3, 2)), jnp.eye(3))
    before = len(traced)
    second = empirical_kernel(function, 2 * jnp.ones((3, 2)), jnp.eye(3))
    assert len(traced) <= before + 1  # the shape of its outputs is asked anew
    np.testing.assert_array_equal(first, second)


class Unhashable(list):
    """A callable that no table can hold."""

    def __call__(self, w, x):
        return x @ w["w"] * w["count"]


def test_unhashable_functions_and_parameters_that_do_not_move():
    parameters = {"w": np.ones((3, 2), "float32"), "count": jnp.array(2), "name": "layer"}
    for way in WAYS:
        found = empirical_kernel(Unhashable(), parameters, np.eye(3, dtype="float32"), way=way)
        np.testing.assert_allclose(found, 4 * np.eye(3))


def test_other_jax_breaks_the_choice_and_not_the_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax.extend.core", None)
    arguments = (lambda w, x: x @ w, jnp.ones((3, 2)), jnp.eye(3))
    with pytest.warns(UserWarning, match="shows no programs"):
        found = empirical_kernel(*arguments)
    np.testing.assert_allclose(found, np.eye(3))
    with pytest.raises(ImportError):
        empirical_kernel(*arguments, way="structured")
