"""Deep kernel machines on the nodes of a graph."""

import math
from typing import Any

import numpy as np
import pytest

from widthwise.data import Data
from widthwise.family import Member
from widthwise.inference import Inducing
from widthwise.learner import Posterior
from widthwise.limits import EmptyCell, graph_posterior
from widthwise.network import Conv, Dense, Erf, GlobalAveragePool, Readout, Relu, Unflatten
from widthwise.scaling import MuP

RNG = np.random.default_rng(1)
NET = Dense() >> Relu() >> Readout(weight_variance=1.0)
DEEP = Dense() >> Relu() >> Dense(bias_variance=0.2) >> Erf() >> Readout(weight_variance=1.0)


def deep(**settings: Any) -> Posterior:
    defaults = {"prior": "deep_gp", "noise": 0.1, "nu": 1.0} | settings
    return Posterior(**defaults)  # type: ignore[arg-type]


def normalised(links: np.ndarray) -> np.ndarray:
    """Links both ways and to itself, over the roots of the nodes' degrees."""
    links = np.minimum(links + links.T, 1.0)
    np.fill_diagonal(links, 1.0)
    root = np.sqrt(links.sum(axis=1))
    return links / root / root[:, None]


def graph(n: int, seed: int = 0) -> np.ndarray:
    return normalised((np.random.default_rng(seed).random((n, n)) < 3 / n).astype(float))


@pytest.mark.slow
def test_the_priors_covariance_is_that_of_wide_graph_networks():
    """Ten draws of 2,000 features in each layer, with weights and biases drawn by hand."""
    n, d, width, rng = 5, 3, 2000, np.random.default_rng(0)
    x, a = rng.normal(size=(n, d)), graph(n)
    found = graph_posterior(DEEP, x, a, np.ones((2, 1)), np.array([0, 1]), deep(nu=math.inf))
    np.testing.assert_allclose(found.grams[0], 2 / d * a @ x @ x.T @ a.T, rtol=1e-9)
    total = np.zeros((n, n))
    for _ in range(10):
        first = a @ x @ rng.normal(size=(d, width)) * np.sqrt(2 / d)
        second = a @ np.maximum(first, 0) @ rng.normal(size=(width, width)) * np.sqrt(2 / width)
        second += np.sqrt(0.2) * rng.normal(size=width)
        values = a @ np.vectorize(math.erf)(second)
        total += values @ values.T / width / 10
    assert np.abs(found.kernel - total).max() < 0.03 * found.kernel.max()


def test_without_links_it_is_the_machine_of_the_labelled_rows():
    x, y = RNG.normal(size=(10, 3)), RNG.normal(size=(10, 1))
    net = Dense() >> Relu() >> Dense() >> Erf() >> Readout(weight_variance=1.0)
    found = graph_posterior(net, x, np.eye(10), y[:7], np.arange(7), deep())
    data = Data.of(x[:7], y[:7], x[7:], y[7:], task="regression")
    run = Member(net, math.inf, MuP(), deep()).train(data)
    wanted = run.predict(x, covariance=True)
    assert wanted.covariance is not None
    np.testing.assert_allclose(found.value, wanted.value, atol=2e-4)
    np.testing.assert_allclose(found.variance, np.diagonal(wanted.covariance), atol=2e-4)


def heterophilous(n: int = 40):
    """Nodes of two classes, most of whose links go to the other one; one feature of eight tells."""
    rng = np.random.default_rng(3)
    classes = np.arange(n) % 2
    x = rng.normal(size=(n, 8))
    x[:, 0] += 1.2 * (2 * classes - 1)
    other = classes[:, None] != classes
    a = normalised((rng.random((n, n)) < np.where(other, 6 / n, 1 / n)).astype(float))
    return x, a, np.eye(2)[classes], rng.permutation(n)[: n // 2]


@pytest.mark.slow
def test_features_that_learn_tell_more_of_a_heterophilous_graph():
    x, a, y, labelled = heterophilous()
    rest = np.setdiff1d(np.arange(len(x)), labelled)
    logs = {}
    for nu in (math.inf, 0.3):
        learner = deep(nu=nu, likelihood="categorical", noise=None)
        found = graph_posterior(NET, x, a, y[labelled], labelled, learner)
        np.testing.assert_allclose(found.value.sum(axis=1), 1)
        assert found.residual < 1e-4
        logs[nu] = np.mean(np.log(np.sum(found.value * y, axis=1)[rest]))
    assert logs[0.3] > logs[math.inf] + 0.1


@pytest.mark.slow
def test_the_bound_grows_as_nu_falls_and_labels_are_fitted():
    x, a, y, labelled = heterophilous(20)
    targets = y[labelled, :1] - 0.5
    found = [
        graph_posterior(NET, x, a, targets, labelled, deep(nu=nu)) for nu in (math.inf, 10.0, 1.0)
    ]
    bounds = [one.bound for one in found]
    assert bounds == sorted(bounds)
    kernel = found[0].kernel[np.ix_(labelled, labelled)] + 0.1 * np.eye(len(labelled))
    wanted = -0.5 * np.sum(targets * np.linalg.solve(kernel, targets))
    wanted -= 0.5 * (np.linalg.slogdet(kernel)[1] + len(labelled) * np.log(2 * np.pi))
    assert bounds[0] == pytest.approx(wanted, rel=1e-9)
    errors = [np.mean((one.value[labelled] - targets) ** 2) for one in found]
    assert errors[2] < errors[0]


@pytest.mark.parametrize(
    "changed, match",
    [
        ({"adjacency": np.eye(3)}, "shape \\(3, 3\\) and there are 4 nodes"),
        ({"labelled": np.array([0, 0])}, "each once"),
        ({"labelled": np.array([0, 7])}, "0 to 3"),
        ({"learner": deep(noise=None)}, "needs a noise"),
        ({"learner": deep(nu=0.0)}, "numbers over 0"),
        ({"learner": deep(nu=(1.0, 2.0))}, "1 hidden layers: give one"),
        ({"learner": deep(inducing=Inducing(3))}, "neither inducing points"),
        ({"learner": deep(prior="network")}, "deep Gaussian processes"),
        ({"network": Unflatten((2,)) >> Conv((2,)) >> GlobalAveragePool() >> Readout()}, "Dense"),
    ],
)  # fmt: skip
def test_what_it_is_not_for(changed, match, unchecked):
    given = {
        "network": NET, "x": np.ones((4, 2)), "adjacency": np.eye(4), "y": np.ones((2, 1)),
        "labelled": np.array([0, 1]), "learner": deep(),
    }  # fmt: skip
    with pytest.raises((ValueError, EmptyCell), match=match):
        graph_posterior(**(given | changed))
