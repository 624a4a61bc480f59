"""Kernels by Monte Carlo against closed forms, against NumPy, and against each other."""

import pickle
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel

import widthwise as ww
from widthwise.family import Family, Member, sources_of
from widthwise.kernels import (
    KernelEstimates,
    KernelMatrices,
    MonteCarlo,
    kernel_diagonal,
    kernel_matrix,
    monte_carlo,
)
from widthwise.kernels.matrix import layer_kernels
from widthwise.learner import GradientDescent, GradientFlow, Posterior
from widthwise.limits.base import EmptyCell
from widthwise.limits.descent import largest_stable_step
from widthwise.network import (
    AveragePool,
    Conv,
    Dense,
    Erf,
    Flatten,
    MaxPool,
    Readout,
    Relu,
    Unflatten,
)
from widthwise.problem import pose
from widthwise.scaling import NTK, MuP, Richness, Standard
from widthwise.sklearn import WideKernel, WideRegressor
from widthwise.stepsize import with_step_size

MLP: Any = (
    Dense(bias_variance=0.1)
    >> Relu()
    >> Dense(times=2, lr_multiplier=3.0)
    >> Erf()
    >> Readout(bias_variance=0.2)
)
GRID = Unflatten((4, 4)) >> Conv() >> Relu()
POOLED = GRID >> AveragePool() >> Flatten() >> Readout()
LARGEST: Any = GRID >> MaxPool() >> Flatten() >> Readout()
WIDTH = 128


def sampled(network, samples=16, seed=0, width=WIDTH):
    return MonteCarlo(network, samples=samples, width=width, seed=seed)


def near(found: Any, exact: Any, width: int, errors=4.0):
    """Within so many standard errors of each entry and the bias of a finite width."""
    for name in ("nngp", "ntk"):
        limit = getattr(exact, name)
        size = np.sqrt(np.outer(np.diag(limit), np.diag(limit)))
        gap = np.abs(getattr(found, name) - limit)
        assert np.all(gap <= errors * getattr(found, f"{name}_error") + 3 / width * size), name


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).normal(size=(16, 16))  # one shape for most: compiled once


SCALINGS = [NTK(), Standard(), MuP(), Richness(0.25)]


@pytest.mark.parametrize(
    "network, scaling", [*((MLP, one) for one in SCALINGS), (POOLED, NTK())], ids=repr
)
def test_it_agrees_with_closed_forms(network, scaling, rows):
    found = kernel_matrix(sampled(network, 32), rows, scaling=scaling)
    exact = kernel_matrix(network, rows, scaling=scaling)
    assert isinstance(found, KernelEstimates) and isinstance(exact, KernelMatrices)
    near(found, exact, WIDTH)
    assert np.all(found.ntk_error < 0.1 * np.max(exact.ntk))


def test_constants_of_a_finite_width_enter(rows):
    found = kernel_matrix(sampled(MLP, 32), rows, scaling=Standard(), width=16)
    near(found, kernel_matrix(MLP, rows, scaling=Standard(), width=16), WIDTH)


def test_features_without_a_readout_have_kernels(rows):
    for network in (Dense() >> Erf(), (Dense() >> Relu() >> Readout()) + Readout()):
        near(kernel_matrix(sampled(network, 32), rows), kernel_matrix(network, rows), WIDTH)


def test_the_bias_falls_with_the_width(rows):
    """Three layers of width 4 are far from their limit, which no number of samples mends."""
    network = Dense() >> Relu() >> Dense() >> Relu() >> Dense() >> Relu() >> Readout()
    exact = kernel_matrix(network, rows).ntk
    bias = []
    for width, samples in ((4, 1500), (8, 1500)):
        found = kernel_matrix(sampled(network, samples, width=width), rows)
        gap = (found.ntk - exact) / np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        bias.append(np.sqrt(np.mean(gap**2)))
    assert 1.5 < bias[0] / bias[1] < 2.8


def test_errors_fall_with_the_root_of_samples(rows):
    few, many = (kernel_matrix(sampled(LARGEST, samples), rows) for samples in (16, 128))
    for name in ("nngp_error", "ntk_error"):
        ratio = np.mean(getattr(few, name)) / np.mean(getattr(many, name))
        assert 2.1 < ratio < 3.8, (name, ratio)


def test_errors_say_how_far_independent_halves_are_apart(rows):
    halves = [kernel_matrix(sampled(LARGEST, 16, seed), rows) for seed in range(24)]
    for name in ("nngp", "ntk"):
        values = np.stack([getattr(half, name) for half in halves])
        told = np.stack([getattr(half, f"{name}_error") for half in halves])
        ratio = np.std(values, axis=0, ddof=1) / np.sqrt(np.mean(told**2, axis=0))
        assert 0.8 < np.sqrt(np.mean(ratio**2)) < 1.2, name
        assert 0.4 < ratio.min() and ratio.max() < 1.8, name


def test_the_seed_decides(rows):
    one, again, other = (kernel_matrix(sampled(LARGEST, seed=seed), rows) for seed in (0, 0, 1))
    for a, b, c in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.any(a == c)
    errors = [np.hypot(*pair) for pair in zip(one[2:], other[2:], strict=True)]
    near(KernelEstimates(*other[:2], *errors), one, WIDTH)


@pytest.mark.slow
def test_any_tiling_and_either_switch_give_the_same(rows, monkeypatch):
    network = sampled(LARGEST)
    whole, diagonal = kernel_matrix(network, rows), kernel_diagonal(network, rows)
    cross = kernel_matrix(network, rows[:2], rows)
    monkeypatch.setattr(monte_carlo, "ROWS", 8)
    tiled = kernel_matrix(network, rows)
    with jax.enable_x64(True):
        switched = kernel_matrix(network, rows)
    for one, two, three, four in zip(whole, tiled, switched, cross, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(three, two)
        np.testing.assert_allclose(four, one[:2], rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(one, one.T)
    for kernel, alone in zip(whole[:2], diagonal, strict=True):
        assert np.linalg.eigvalsh(kernel)[0] > 0
        np.testing.assert_allclose(alone, np.diag(kernel), rtol=1e-12)


def test_a_tile_holds_no_more_numbers_than_it_may(rows):
    assert monte_carlo.sampled_rows(sampled(MLP), (16,)) == monte_carlo.ROWS
    wide = monte_carlo.sampled_rows(sampled(LARGEST, width=2**14), (16,))
    assert 1 <= wide <= monte_carlo.ENTRIES // (16 * 2**14)


def by_hand(x, samples, width, rng):
    """(nngp, ntk) of LARGEST and their standard errors, written out for its 4 x 4 grid."""
    grid = np.pad(x.reshape(-1, 4, 4), ((0, 0), (1, 1), (1, 1)))
    patches = np.stack([grid[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)], -1)
    windows = patches.reshape(-1, 2, 2, 2, 2, 9).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4, 9)
    drawn = []
    for _ in range(samples):
        h = windows @ rng.normal(size=(9, width)) * np.sqrt(2 / 9)  # rows, windows, inside, feature
        first = np.argmax(h, axis=2)
        best = np.take_along_axis(h, first[:, :, None], axis=2)[:, :, 0]
        features = np.maximum(best, 0).reshape(len(x), -1)
        chosen = np.take_along_axis(windows, first[..., None].reshape(len(x), 4, -1, 1), axis=2)
        slopes = (best > 0)[..., None] * chosen * np.sqrt(2 / 9)  # of the filter's weights
        slopes = slopes.reshape(len(x), -1)
        active = (best > 0).reshape(len(x), -1) * 0.1  # of its biases
        products = [a @ a.T / features.shape[1] for a in (features, slopes, active)]
        nngp = 0.25 * products[0]  # which is the readout's share in the tangent kernel as well
        drawn.append((nngp, nngp + 0.01 + 0.25 * (products[1] + products[2])))
    stacked = np.array(drawn)
    return stacked.mean(axis=0), stacked.std(axis=0, ddof=1) / np.sqrt(samples)


def test_max_pooling_agrees_with_a_network_written_by_hand(rows):
    found: Any = kernel_matrix(sampled(LARGEST, 128), rows)
    (nngp, ntk), (nngp_error, ntk_error) = by_hand(rows, 64, WIDTH, np.random.default_rng(7))
    assert np.all(np.abs(found.nngp - nngp) < 4.5 * np.hypot(found.nngp_error, nngp_error))
    assert np.all(np.abs(found.ntk - ntk) < 4.5 * np.hypot(found.ntk_error, ntk_error))


@pytest.mark.parametrize("padding", ["VALID", "SAME", "CIRCULAR"])
def test_max_pooling_is_the_largest_of_each_window(padding, rng):
    x = rng.normal(size=(5, 4, 3))
    found = np.asarray(MaxPool((3, 2), (2, 1), padding).apply(None, x))
    low = {"VALID": (0, 0), "SAME": (1, 0), "CIRCULAR": (1, 0)}[padding]
    outputs = {"VALID": (2, 3), "SAME": (3, 4), "CIRCULAR": (3, 4)}[padding]
    assert found.shape == (*outputs, 3)
    for i, j in np.ndindex(*outputs):
        at = [(2 * i + a - low[0], j + b - low[1]) for a in range(3) for b in range(2)]
        if padding == "SAME":
            at = [(a, b) for a, b in at if 0 <= a < 5 and 0 <= b < 4]
        largest = np.max([x[a % 5, b % 4] for a, b in at], axis=0)
        np.testing.assert_allclose(found[i, j], largest, rtol=1e-6)


def test_it_is_a_value_that_says_what_it_is():
    network = sampled(LARGEST, seed=3)
    assert repr(network) == f"MonteCarlo({LARGEST!r}, samples=16, width=128, seed=3)"
    assert network == pickle.loads(pickle.dumps(network)) and hash(network) == hash(network)
    assert network != sampled(LARGEST) and MonteCarlo(LARGEST) == MonteCarlo(LARGEST, 64, 512, 0)
    assert MonteCarlo.source.split("; ")[0] in sources_of(network, NTK())
    assert MaxPool.source in sources_of(network, NTK())


def test_layers_have_kernels_too(rows):
    exact, found = layer_kernels(MLP, rows), layer_kernels(sampled(MLP, 32), rows)
    for one, two in zip(exact, found, strict=True):
        np.testing.assert_allclose(two, one, atol=0.09 * np.max(one))
    np.testing.assert_allclose(found[-1], kernel_matrix(sampled(MLP, 32), rows).nngp, rtol=1e-9)


@pytest.fixture(scope="module")
def numbers(rows):
    X = np.random.default_rng(2).normal(size=(32, 16))
    return X, np.max(X.reshape(-1, 4, 4), axis=(1, 2))


def test_a_regressor_takes_it_and_says_so(numbers, tmp_path):
    X, y = numbers
    known, new = X[:16], X[16:]
    model = WideRegressor(sampled(LARGEST), learner=Posterior(noise=0.1)).fit(known, y[:16])
    (note,) = model.run_.notes
    assert note.startswith("Kernel by Monte Carlo: 16 networks of width 128, relative standard er")
    mean, std = model.predict(new, return_std=True)
    inner, cross = (kernel_matrix(sampled(LARGEST), *x).nngp for x in ((known,), (new, known)))
    targets = (y[:16] - y[:16].mean()) / y[:16].std()
    expected = cross @ np.linalg.solve(inner + 0.1 * np.eye(16), targets)
    np.testing.assert_allclose(mean, expected * y[:16].std() + y[:16].mean(), rtol=1e-6)
    assert np.all(std > 0)
    model.run_.save(tmp_path / "run")
    again = ww.Run.load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict(new).value, model.run_.predict(new).value)
    descended = WideRegressor(sampled(LARGEST), learner=GradientFlow()).fit(known, y[:16])
    assert descended.run_.notes[0].startswith("Kernel by Monte Carlo")
    np.testing.assert_allclose(descended.predict(known), y[:16], rtol=1e-6)


def test_scikit_learn_s_machines_take_it(numbers):
    X, y = (part[:16] for part in numbers)
    kernel = WideKernel(sampled(LARGEST), "ntk")
    np.testing.assert_allclose(kernel.diag(X), np.diag(kernel(X)), rtol=1e-12)
    assert "MonteCarlo" in repr(kernel)
    model = GaussianProcessRegressor(kernel + WhiteKernel(0.1), normalize_y=True).fit(X, y)
    assert model.score(X, y) > 0.8
    with pytest.raises(ValueError, match="choose 'nngp' or 'ntk'"):
        WideKernel(sampled(LARGEST), "nngp_error")(X)


@pytest.mark.slow
def test_a_family_takes_it_at_every_width(numbers):
    data = ww.data.from_arrays(*numbers)
    known = Family(sampled(LARGEST), NTK(), GradientDescent(lr=0.1, steps=3), (8, np.inf), 1)
    runs = known.train(data, progress=False)
    assert runs.open_cells == () and runs.limit is not None
    assert runs.limit.notes[0].startswith("Kernel by Monte Carlo: 16 networks of width 128")
    names = [list(run.trajectory.kernels) for run in (*runs.at(8), runs.limit)]
    assert names[0] == names[1] and len(names[0]) == 2


def test_the_default_step_of_finite_members_is_measured_by_drawing(numbers):
    X, y = numbers
    data = ww.data.from_arrays(X, y)
    learner = with_step_size(LARGEST, NTK(), GradientDescent(), pose(data, "mse"))
    kernel = kernel_matrix(sampled(LARGEST), pose(data, "mse").x_train).ntk
    exact = largest_stable_step(kernel, GradientDescent())
    assert learner.lr == pytest.approx(0.5 * exact, rel=0.1)


REFUSED = {
    "tuned": (
        lambda: Member(sampled(MLP), np.inf, NTK(), Posterior(tune=True)).train(
            ww.data.load("iris")
        ),
        EmptyCell,
        "leave tune out",
    ),
    "rich": (
        lambda: Member(sampled(MLP), np.inf, MuP(), GradientDescent()),
        EmptyCell,
        "under a rich scaling features move",
    ),
    "composed": (lambda: sampled(MLP) >> Relu(), TypeError, "is a whole network: compose"),
    "inside": (lambda: Dense() >> sampled(MLP), TypeError, "is a whole network: compose"),
    "nested": (lambda: sampled(sampled(MLP)), TypeError, "is a whole network: compose"),
    "no network": (lambda: MonteCarlo(3), TypeError, "3 is no layer"),  # type: ignore
    "one sample": (lambda: MonteCarlo(MLP, samples=1), ValueError, "samples.*at least 2"),
    "no width": (lambda: MonteCarlo(MLP, width=np.inf), TypeError, "width.*whole"),  # type: ignore
    "a grid": (
        lambda: kernel_matrix(sampled(GRID), np.ones((2, 16))),
        ValueError,
        "leaves a grid of positions",
    ),
    "moments": (
        lambda: sampled(MLP).kernel(None, None),  # type: ignore
        ValueError,
        "ask kernel_matrix",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, unchecked):
    ask, error, words = REFUSED[name]
    with pytest.raises(error, match=words) as refusal:
        ask()
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")
