"""Networks' kernels in other libraries: the code of docs/gaussian_processes.md, and its ground.

tinygp and GPJax are no dependencies: their tests are skipped where they are not installed. To run
them, install them into the environment of the tests, `pip install tinygp gpjax`, and run
`pytest tests/faces/test_other_libraries.py`.
"""

# pyright: reportArgumentType=false
# scikit-learn carries no types, and what pyright infers of its machines is too narrow

import doctest
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.svm import SVC
from slowly import cases, cases_of

import widthwise as ww
from widthwise.kernels import MonteCarlo, kernel_function, kernel_matrix
from widthwise.network import (
    Conv,
    Dense,
    Erf,
    Flatten,
    GlobalAveragePool,
    Masked,
    MaxPool,
    Readout,
    Relu,
    Unflatten,
)
from widthwise.sklearn import WideKernel

PAGE = Path(__file__).parents[2] / "docs" / "gaussian_processes.md"
CONV = Unflatten((8, 8)) >> Conv() >> Relu() >> Flatten() >> Readout()
NETWORKS = {
    "dense": (Dense(bias_variance=0.1) >> Relu() >> Dense() >> Erf() >> Readout(), (5,)),
    "convolutional": (Conv((3,)) >> Relu() >> GlobalAveragePool() >> Readout(), (4, 2)),
    "masked": (
        Masked(missing=0.1) >> Conv((3,)) >> Relu() >> GlobalAveragePool() >> Readout(), (4, 2),
    ),
}  # fmt: skip
which_kernel = pytest.mark.parametrize("which", ["nngp", "ntk"])


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:60] / 16, y[:60] % 2


def of_page(library: str) -> dict[str, Any]:
    """The names of the page's first examples and of its code for one library."""
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    examples = doctest.DocTestParser().get_examples(text.split("## scikit-learn")[0])
    for example in examples:
        exec(example.source, names)
    names["x"], names["y"], names["new"] = names["x"][:20], names["y"][:20], names["new"][:4]
    (code,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", text, re.S)
        if f"import {library}" in code
    )
    exec(code, names)
    return names


def member_mean(names: dict[str, Any], net, which: str):
    data = ww.data.Data.of(names["x"], names["y"][:, None], [], [], task="regression")
    learner = ww.Posterior(noise=names["noise"], kernel=which)
    run = ww.Member(net, ww.inf, ww.NTK(), learner).train(data)
    return run.predict(names["new"]).value[:, 0]


@pytest.mark.parametrize("library", ["tinygp", "gpjax"])
def test_its_posterior_mean_is_the_member_s(library):
    pytest.importorskip(library)
    names = of_page(library)
    for net in (names["dense"], names["conv"]):
        for which in ("nngp", "ntk"):
            found = names[f"{library}_mean"](net, which)
            np.testing.assert_allclose(found, member_mean(names, net, which), atol=1e-6)


@which_kernel
def test_scikit_learn_s_machines_with_a_convolutional_network(which, digits):
    x, y = digits
    kernel, matrix = WideKernel(CONV, which), getattr(kernel_matrix(CONV, x), which)
    machine, given = SVC(C=100, kernel=kernel), SVC(C=100, kernel="precomputed")
    found = machine.fit(x[:40], y[:40]).decision_function(x[40:])
    expected = given.fit(matrix[:40, :40], y[:40]).decision_function(matrix[40:, :40])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.mean((found > 0) == y[40:]) > 0.7
    names = {"x": x[:40], "y": 2.0 * y[:40] - 1, "new": x[40:], "noise": 0.01}
    process = GaussianProcessRegressor(kernel, alpha=0.01).fit(names["x"], names["y"])
    np.testing.assert_allclose(
        process.predict(names["new"]), member_mean(names, CONV, which), atol=1e-6
    )


def inputs(rng, shape):
    x = rng.normal(size=(4, *shape))
    if len(shape) > 1:
        x[0, 2:] = 0.1
    x[3] = x[1]
    return x


@pytest.mark.parametrize("name", cases_of(NETWORKS, ("convolutional",)))
def test_the_function_agrees_with_the_matrix(name, rng, double):
    net, shape = NETWORKS[name]
    x = inputs(rng, shape)
    function = jax.jit(kernel_function(net, shape))
    for one, other in ((x, None), (x, x[:2])):
        found = function(jnp.asarray(one), None if other is None else jnp.asarray(other))
        expected = kernel_matrix(net, one, other)
        np.testing.assert_allclose(found.nngp, expected.nngp, rtol=1e-12)
        np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-7)
    mapped = jax.vmap(lambda row: function(row[None], jnp.asarray(x[:2])).ntk[0])(jnp.asarray(x))
    np.testing.assert_allclose(mapped, kernel_matrix(net, x, x[:2]).ntk, rtol=1e-7)


@pytest.mark.slow
def test_made_in_single_precision_it_computes_in_that_of_its_inputs(rng):
    net = Dense(weight_variance=0.3, bias_variance=0.1) >> Erf() >> Readout(weight_variance=0.7)
    x, function = rng.normal(size=(3, 5)), kernel_function(net, 5)
    with jax.enable_x64(True):
        found = function(jnp.asarray(x))
    np.testing.assert_allclose(found.ntk, kernel_matrix(net, x).ntk, rtol=1e-14)
    assert function(jnp.asarray(x, jnp.float32)).ntk.dtype == jnp.float32


@pytest.mark.parametrize(
    "name, which",
    cases(
        [("dense", "nngp"), ("masked", "ntk")],
        [("dense", "ntk"), ("masked", "nngp"), ("convolutional", "nngp"), ("convolutional", "ntk")],
    ),
)
def test_its_gradient_is_finite_where_rows_are_equal(name, which, rng, double):
    net, shape = NETWORKS[name]
    x = jnp.asarray(inputs(rng, shape))
    function = jax.jit(kernel_function(net, shape))
    for total in (
        lambda u: getattr(function(u), which).sum(),
        lambda u: getattr(function(u, x), which).sum(),
    ):
        assert jnp.isfinite(jax.grad(total)(x)).all()


@pytest.mark.parametrize("which", cases(["ntk"], ["nngp"]))
def test_at_coinciding_rows_it_is_the_mean_of_both_sides(which, rng, double):
    net, (size,) = NETWORKS["dense"]
    x, direction = jnp.asarray(rng.normal(size=(2, size)))
    function = jax.jit(kernel_function(net, size))

    def along(t):
        return getattr(function((x + t * direction)[None], x[None]), which)[0, 0]

    def own(t):
        return getattr(function((x + t * direction)[None]), which)[0, 0]

    step = 1e-5
    for of in (along, own):
        expected = (of(step) - of(-step)) / (2 * step)
        np.testing.assert_allclose(jax.grad(of)(0.0), expected, rtol=1e-3, atol=1e-6)
    if which == "ntk":  # a kink: the slopes on both sides differ
        assert along(step) + along(-step) - 2 * along(0.0) < -0.01 * step


@pytest.mark.parametrize(
    "net, words",
    [
        (Unflatten((8, 8)) >> Conv() >> Relu(), "leaves a grid of positions: end it in Flatten"),
        (Unflatten((8, 8)) >> Conv() >> MaxPool() >> Flatten() >> Readout(), "no closed form"),
        (MonteCarlo(CONV, samples=2, width=8), "ask kernel_matrix for its kernels"),
    ],
)
def test_what_it_cannot_do_is_refused(net, words):
    with pytest.raises(ValueError, match=words):
        kernel_function(net, 64)


@pytest.mark.usefixtures("unchecked")
def test_inputs_of_other_shapes_are_refused():
    function = kernel_function(CONV, 64)
    for x in (jnp.ones(64), jnp.ones((2, 63)), jnp.ones((2, 8, 8, 1))):
        with pytest.raises(ValueError, match=r"give rows of them, \(n, 64\)"):
            function(x)
