"""The lazy posterior through inducing rows against its formulas written out."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from widthwise.data import from_arrays
from widthwise.family import Member
from widthwise.inference import Inducing
from widthwise.kernels import MonteCarlo, kernel_matrix
from widthwise.learner import Posterior
from widthwise.limits import EmptyCell, lookup
from widthwise.limits.evidence import best_variances
from widthwise.limits.inducing import chosen_rows, settle
from widthwise.network import Dense, Rbf, Readout, Relu
from widthwise.problem import Problem
from widthwise.resources import Resources
from widthwise.scaling import NTK
from widthwise.sklearn import WideRegressor
from widthwise.spec import read_named

RNG = np.random.default_rng(7)
X, NEW = RNG.normal(size=(40, 3)), RNG.normal(size=(6, 3))
Y = np.stack([np.sin(2 * X[:, 0]), X[:, 1] * X[:, 2]], axis=1) + 0.1 * RNG.normal(size=(40, 2))
NET = Dense(bias_variance=0.2) >> Relu() >> Readout(weight_variance=1.0)
NOISE = 0.05


def through(count: int, net: Any = NET, x=X, y=Y, **settings: Any):
    learner = Posterior(**{"noise": NOISE, **settings})  # type: ignore[arg-type]
    return settle(net, x, y, count=count, learner=learner, scaling=NTK())


def trained(count: int, **settings: Any):
    learner = Posterior(inducing=Inducing(count), **settings)
    data = from_arrays(X, Y[:, 0], task="regression", test=8)
    return Member(NET, math.inf, NTK(), learner).train(data)


@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
def test_bound_and_posterior_as_written_out(kernel):
    """With NumPy's inverses."""
    found = through(12, kernel=kernel)
    z, inverse = found.points, np.linalg.inv
    among, cross, own, new, prior = (
        getattr(kernel_matrix(NET, *pair), kernel)
        for pair in ((z, z), (X, z), (X, None), (NEW, z), (NEW, None))
    )
    told: Any = cross @ inverse(among) @ cross.T
    normal = scipy.stats.multivariate_normal(cov=told + NOISE * np.eye(40))
    expected = sum(normal.logpdf(y) for y in Y.T) - np.trace(own - told) / NOISE
    assert found.bound.at(NOISE) == pytest.approx(expected, rel=1e-8)
    problem = Problem(X, Y, NEW, np.zeros((6, 2)), 0.0, "regression")
    learner = Posterior(noise=NOISE, kernel=kernel, inducing=Inducing(12))
    run = lookup(NET, NTK(), learner).prepare(problem, order=0, logs=2).train()
    inner = inverse(among + cross.T @ cross / NOISE)
    value = run.state.predict(NEW, True)
    np.testing.assert_allclose(value.value, new @ inner @ cross.T @ Y / NOISE, rtol=1e-7)
    covariance = prior - new @ (inverse(among) - inner) @ new.T
    assert value.covariance is not None
    np.testing.assert_allclose(value.covariance, covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(run.trajectory.predictions[-1], value.value, rtol=1e-10)
    fitted = cross @ inner @ cross.T @ Y / NOISE
    assert run.trajectory.train_loss[1] == pytest.approx(0.5 * np.mean((fitted - Y) ** 2) * 2)


def test_more_rows_bound_better_and_all_of_them_are_exact():
    found = [through(count).bound.at(NOISE) for count in (3, 10, 25)]
    assert found == sorted(found)
    kernel: Any = kernel_matrix(NET, X, which="nngp") + NOISE * np.eye(40)
    evidence = sum(scipy.stats.multivariate_normal(cov=kernel).logpdf(y) for y in Y.T)
    assert found[-1] < evidence
    assert through(40).bound.at(NOISE) == pytest.approx(evidence, rel=1e-7)
    exact, some = (Member(NET, math.inf, NTK(), learner) for learner in (
        Posterior(noise=NOISE), Posterior(noise=NOISE, inducing=Inducing(100)),
    ))  # fmt: skip
    data = from_arrays(X, Y[:, 0], task="regression", test=8)
    one, other = (member.train(data) for member in (exact, some))
    np.testing.assert_array_equal(one.predict(NEW).value, other.predict(NEW).value)
    assert "There are 32 rows, no more than inducing points" in other.notes[0]


def test_the_noise_of_the_largest_bound():
    found = through(15, noise=None)
    best = found.bound.at(found.noise)
    for factor in (0.01, 0.9, 1.1, 100.0):
        assert found.bound.at(factor * found.noise) < best
    assert "bound chose a noise variance" in found.notes[0]


@pytest.mark.slow
def test_variances_of_the_largest_bound():
    net = Dense() >> Rbf(0.5) >> Readout(weight_variance=1.0)
    points = X[chosen_rows(net, X, 15, scaling=NTK())]
    settings: Any = {"scaling": NTK(), "kernel": "nngp", "inducing": points}
    tuned, noise = best_variances(net, X, Y, noise=None, **settings)

    def bound(network, level):
        z = kernel_matrix(network, points).nngp
        cross, own = kernel_matrix(network, X, points).nngp, kernel_matrix(network, X).nngp
        told: Any = cross @ np.linalg.solve(z, cross.T)
        normal = scipy.stats.multivariate_normal(cov=told + level * np.eye(40))
        return sum(normal.logpdf(y) for y in Y.T) - np.trace(own - told) / level

    best = bound(tuned, noise)
    assert best > bound(net, noise)
    first, last = (tuned.sequence[i].weight_variance for i in (0, 2))  # type: ignore[attr-defined]
    for factor in (0.9, 1.1):
        for changed in (
            Dense(weight_variance=factor * first) >> Rbf(0.5) >> Readout(weight_variance=last),
            Dense(weight_variance=first) >> Rbf(0.5) >> Readout(weight_variance=factor * last),
        ):
            assert bound(changed, noise) < best
        assert bound(tuned, factor * noise) < best
    assert best_variances(net, X, Y, noise=0.2, **settings)[1] == pytest.approx(0.2)


@pytest.mark.slow
def test_a_member_tunes():
    run, plain = trained(10, tune=True), trained(10)
    assert run.notes[0].startswith("The bound chose noise") and "weight_variance" in run.notes[0]
    bounds = [float(one.notes[-1].split("by ")[-1].rstrip(".")) for one in (run, plain)]
    assert bounds[0] > bounds[1]
    found = run.predict(NEW, covariance=True)
    assert found.covariance is not None
    assert np.linalg.eigvalsh(found.covariance)[0] > -1e-9


def test_faces_pass_it_through():
    learner = Posterior(inducing=Inducing(10))
    face = WideRegressor(NET, learner=learner, width=math.inf).fit(X, Y[:, 0])
    wanted = settle(
        NET, X, ((Y - Y.mean(axis=0)) / Y.std(axis=0))[:, :1], count=10, learner=learner,
        scaling=NTK(),
    )  # fmt: skip
    value, std = face.predict(NEW, return_std=True)
    assert value.shape == std.shape == (6,) and np.all(std > 0)
    assert np.sqrt(np.mean((face.predict(X) - Y[:, 0]) ** 2)) < Y[:, 0].std()
    state: Any = face.run_.state
    assert state.noise == pytest.approx(wanted.noise, rel=1e-6)
    assert read_named("Posterior(inducing=Inducing(points=10))", "learner") == learner


def test_what_is_refused():
    data = from_arrays(X, Y[:, 0], task="regression", test=8)
    member = Member(NET, math.inf, NTK(), Posterior(inducing=Inducing(10)))
    with pytest.raises(EmptyCell, match="leave memory, store and cluster out"):
        member.train(data, resources=Resources(memory="1GB"))
    with pytest.raises(EmptyCell, match="leave inducing out"):
        lookup(MonteCarlo(NET, samples=4), NTK(), Posterior(inducing=Inducing(10)))
