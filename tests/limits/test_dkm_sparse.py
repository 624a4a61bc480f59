"""Deep kernel machines through inducing rows: bounds, their limits, and nus of each layer."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from widthwise.data import from_arrays
from widthwise.family import Member
from widthwise.inference import Inducing
from widthwise.learner import Posterior
from widthwise.limits import DeepKernelMachine, EmptyCell, linear_grams, lookup
from widthwise.limits.dkm.extend import Known, outputs_beside
from widthwise.limits.dkm.full import (
    Optimum,
    at_prior,
    best_grams,
    divergences,
    passage,
    posed,
    restarted,
)
from widthwise.limits.dkm.layers import gram_layers
from widthwise.limits.dkm.learned import learn
from widthwise.limits.dkm.sparse import evaluated, rows_of, through
from widthwise.limits.inducing import chosen_rows
from widthwise.network import Dense, Rbf, Readout, Relu
from widthwise.problem import Problem
from widthwise.scaling import NTK, MuP
from widthwise.solve import NotSolvable

RNG = np.random.default_rng(5)
X = RNG.normal(size=(24, 6))
NEW = RNG.normal(size=(4, 6))
Y = np.sin(2 * X[:, :1]) + X[:, 1:2] * X[:, 2:3]
NET = Dense() >> Rbf(0.3) >> Dense() >> Rbf(0.3) >> Readout(weight_variance=1.0)
LAYERS = gram_layers(NET)
NUS, NOISE = (3.0, 2.0), 0.1
SETTINGS: Any = {"scaling": MuP(), "nus": NUS, "noise": NOISE}
ORDER = chosen_rows(NET, X, 24, scaling=NTK())


def best(count: int, net: Any = NET, tolerance: float = 1e-6, **settings: Any) -> Optimum:
    inducing = X[ORDER[:count]]
    fixed = posed(net, inducing, Y, **(SETTINGS | settings))
    objective = through(rows_of(inducing, X, Y))
    return best_grams(gram_layers(net), fixed, tolerance=tolerance, objective=objective)


@functools.cache
def full() -> Optimum:
    return best_grams(LAYERS, posed(NET, X, Y, **SETTINGS), tolerance=1e-8)


def test_rows_are_chosen_in_turn_by_the_variance_that_is_left():
    assert sorted(ORDER) == list(range(24))
    np.testing.assert_array_equal(ORDER[:5], chosen_rows(NET, X, 5, scaling=NTK()))
    double = np.concatenate([X[:3], X[:3]])
    assert len(chosen_rows(NET, double, 6, scaling=NTK())) == 3
    linear = Dense() >> Readout()  # of rank 6
    assert len(chosen_rows(linear, X, 12, scaling=NTK())) == 6


KINKED = Dense() >> Relu() >> Dense() >> Relu() >> Readout()


@pytest.mark.parametrize("net", [pytest.param(NET, marks=pytest.mark.slow), KINKED])
def test_gradient_by_finite_differences(net, double):
    """Among rows some of which are inducing rows, where angles have no derivative."""
    layers, inducing = gram_layers(net), X[ORDER[:7]]
    fixed, rows = posed(net, inducing, Y, **SETTINGS), rows_of(inducing, X, Y)
    rng = np.random.default_rng(0)
    at, way = (
        tuple(np.tril(0.5 * rng.normal(size=z.shape)) for z in at_prior(layers, fixed))
        for _ in range(2)
    )

    def value(step):
        moved = tuple(one + step * other for one, other in zip(at, way, strict=True))
        return float(evaluated(layers, fixed, rows, moved)[0][0])

    gradient = evaluated(layers, fixed, rows, at)[1]
    slope = sum(float(np.sum(g * w)) for g, w in zip(gradient, way, strict=True))
    assert (value(1e-5) - value(-1e-5)) / 2e-5 == pytest.approx(slope, rel=1e-7)


@pytest.mark.slow
def test_blocks_of_rows_add_up(double, monkeypatch):
    inducing = X[ORDER[:7]]
    fixed, rows = posed(NET, inducing, Y, **SETTINGS), rows_of(inducing, X, Y)
    free = at_prior(LAYERS, fixed)
    whole = evaluated(LAYERS, fixed, rows, free)
    monkeypatch.setattr("widthwise.limits.bound.BLOCK", 5)
    cut = rows_of(inducing, X, Y)
    assert cut.blocks.x.shape == (5, 5, 6) and float(cut.blocks.counts.sum()) == 24
    parts = evaluated(LAYERS, fixed, cut, free)
    assert float(parts[0][0]) == pytest.approx(float(whole[0][0]), rel=1e-12)
    for one, other in zip(parts[1], whole[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def test_all_rows_as_inducing_rows_are_the_full_machine():
    """In objective, Gram matrices and predictions."""
    found = best(24, tolerance=1e-8)
    assert found.fixed.jitter == 0
    assert found.minimum.value == pytest.approx(full().minimum.value, abs=1e-6)
    for one, other in zip(found.passage.grams, full().passage.grams, strict=True):
        wanted = (other @ other.T)[np.ix_(ORDER, ORDER)]
        assert np.linalg.norm(one @ one.T - wanted) < 1e-6 * np.linalg.norm(wanted)
    through_rows = learn(NET, X, Y, inducing=X[ORDER], **SETTINGS, start=None).state
    on_all = learn(NET, X, Y, **SETTINGS).state
    one, other = (state.predict(NEW, True) for state in (through_rows, on_all))
    np.testing.assert_allclose(one.value, other.value, atol=2e-5)  # of two searches to 1e-5
    assert one.covariance is not None and other.covariance is not None
    np.testing.assert_allclose(one.covariance, other.covariance, atol=2e-5)


@pytest.mark.slow
def test_more_inducing_rows_bound_better():
    """As in an experiment of ours with 24 rows of which 4, 8, ... stood for all."""
    found = [*(-best(count).minimum.value for count in (4, 12)), -full().minimum.value]
    assert found == sorted(found)
    assert found[1] - found[0] > found[2] - found[1] > 0


def test_it_is_the_uncollapsed_bound_at_the_best_outputs(double):
    """The sum over rows of E log p(y | f) less KL divergences, with N(mu, A) for the outputs."""
    inducing = X[ORDER[:8]]
    fixed, rows = posed(NET, inducing, Y, **SETTINGS), rows_of(inducing, X, Y)
    rng = np.random.default_rng(1)
    free = tuple(np.tril(0.5 * rng.normal(size=z.shape)) for z in at_prior(LAYERS, fixed))
    (loss, found) = evaluated(LAYERS, fixed, rows, free)[0]
    passed = jax.jit(lambda t: passage(LAYERS, fixed, t))(free)
    known = Known(fixed.own, jnp.asarray(inducing), passed.roots, passed.whitened)
    beside = jax.jit(lambda x: outputs_beside(LAYERS, known, x))(jnp.asarray(X))
    prior, cross, own = (np.asarray(part) for part in (found.output, beside.xy, beside.xx))
    inner: Any = np.linalg.inv(prior + cross.T @ cross / NOISE)
    mean, spread = prior @ inner @ cross.T @ Y / NOISE, prior @ inner @ prior
    along = cross @ np.linalg.inv(prior)
    f = along @ mean
    variances = own - np.sum(along * cross, axis=1) + np.sum((along @ spread) * along, axis=1)
    expected = scipy.stats.norm.logpdf(Y, f, math.sqrt(NOISE)).sum()
    expected -= Y.shape[1] * variances.sum() / (2 * NOISE)
    ratio = np.linalg.solve(prior, spread)
    logs = np.linalg.slogdet(ratio)[1]
    expected -= (np.trace(ratio) + mean.T @ np.linalg.solve(prior, mean) - 8 - logs).item() / 2
    expected -= float(jax.jit(lambda t: divergences(t, NUS))(free))
    assert -float(loss) == pytest.approx(expected, rel=1e-8)


# Members


DATA = from_arrays(X, Y[:, 0], task="regression", test=6)


def trained(points: int = 9, scaling: Any = None, net: Any = NET, **settings: Any):
    settings = {"noise": 0.1, "prior": "deep_gp"} | settings
    learner = Posterior(inducing=Inducing(points), **settings)
    return Member(net, math.inf, scaling or MuP(), learner).train(DATA)


def test_infinite_nu_is_the_nngp_through_the_same_rows():
    one, other = trained(nu=math.inf), trained(scaling=NTK())
    found, wanted = (run.predict(DATA.x_test, covariance=True) for run in (one, other))
    np.testing.assert_allclose(found.value, wanted.value, atol=1e-6)
    np.testing.assert_allclose(found.covariance, wanted.covariance, atol=1e-6)  # type: ignore[arg-type]
    assert "9 of 18 rows are the inducing points" in one.notes[0]


def test_a_member():
    run = trained(nu=(5.0, math.inf))
    assert "the bound on the log evidence of the NNGP" in run.notes[1]
    found = run.predict(DATA.x_test, covariance=True)
    assert found.covariance is not None
    assert np.linalg.eigvalsh(found.covariance)[0] > -1e-9
    np.testing.assert_allclose(found.value, run.trajectory.predictions[-1], rtol=1e-9)
    assert run.trajectory.train_loss[1] < run.trajectory.train_loss[0]


def test_as_many_points_as_rows_take_all_rows():
    run, whole = trained(50), Member(NET, math.inf, MuP(), deep(nu=1.0)).train(DATA)
    np.testing.assert_array_equal(run.predict(NEW).value, whole.predict(NEW).value)
    assert "There are 18 rows, no more than inducing points" in run.notes[0]


def deep(**settings: Any) -> Posterior:
    return Posterior(noise=0.1, prior="deep_gp", **settings)


@pytest.mark.slow
def test_a_linear_network():
    """Of rank 6: as many inducing rows tell all."""
    net = Dense() >> Dense() >> Readout()
    some = trained(12, net=net, prior="network", nu=4.0)
    assert "6 of 18 rows" in some.notes[0]
    learner = Posterior(noise=0.1, nu=4.0)
    whole = Member(net, math.inf, MuP(), learner).train(DATA)
    np.testing.assert_allclose(some.predict(NEW).value, whole.predict(NEW).value, atol=1e-4)


# A nu for each layer


def test_a_linear_layer_behind_one_at_its_prior():
    """Whose prior covariance is singular."""
    net = Dense(weight_variance=1.0) >> Dense(weight_variance=1.0) >> Readout(weight_variance=1.0)
    settings: Any = SETTINGS | {"nus": (math.inf, 3.0)}
    found = best_grams(gram_layers(net), posed(net, X, Y, **settings), tolerance=1e-8)
    assert found.fixed.jitter == 0
    gram = found.passage.grams[1] @ found.passage.grams[1].T
    wanted = linear_grams(X @ X.T / 6, Y, (1e12, 3.0), noise=NOISE)[1]
    assert np.linalg.norm(gram - wanted) < 1e-5 * np.linalg.norm(wanted)


@pytest.mark.slow
def test_nu_of_zero_fits_best():
    found = [-best(8, nus=(nu, nu), tolerance=1e-5).minimum.value for nu in (0.0, 1.0)]
    assert np.isfinite(found).all()
    assert found[0] > found[1]


def test_from_one_nu_to_the_next():
    first = best_grams(LAYERS, posed(NET, X, Y, **SETTINGS), tolerance=1e-3)
    fixed = posed(NET, X, Y, **(SETTINGS | {"nus": (0.3, 2.0)}))
    start = restarted(LAYERS, first, fixed)
    with jax.enable_x64(True):
        moved = jax.jit(lambda free: passage(LAYERS, fixed, free))(start)
    for one, other in zip(moved.grams, first.passage.grams, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    back = restarted(LAYERS, first, fixed._replace(nus=(math.inf, 1.0)))
    assert back[0] is None and back[1].shape == (24, 24)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"nu": (1.0,)}, r"1 numbers, and the network has 2 hidden layers: give a number for each"),
        ({"criterion": "leave_one_out"}, "use criterion='evidence'"),
        ({"likelihood": "categorical"}, "or likelihood='gaussian'"),
        ({"inducing": Inducing((4, 4))}, "give one number for rows of features"),
        ({"inducing": Inducing(4, batch_size=8)}, "leave batch_size out"),
    ],
)
def test_what_is_refused(settings, match):
    learner = Posterior(**({"inducing": Inducing(4), "prior": "deep_gp"} | settings))
    assert re.search(match, DeepKernelMachine(NET, MuP(), learner).refusal() or "")
    if "nu" not in settings:
        with pytest.raises(EmptyCell, match=match):
            lookup(NET, NTK(), learner)


def test_a_gram_matrix_that_collapses():
    with pytest.raises(EmptyCell, match="hidden layer 2, .*, collapses at nu 0: give a nu over"):
        trained(noise=1e-15, nu=(3.0, 0.0))


def test_memory_is_that_of_the_points(monkeypatch):
    monkeypatch.setattr("widthwise.memory.free_memory", lambda: 10**8)
    many = Problem(np.ones((3000, 2)), np.ones((3000, 1)), NEW[:0, :2], Y[:0], 0.0, "regression")
    lookup(NET, MuP(), deep(inducing=Inducing(50))).check(many)
    with pytest.raises(MemoryError, match="2900 inducing points .* use fewer points"):
        lookup(NET, MuP(), deep(inducing=Inducing(2900))).check(many)
    with pytest.raises(MemoryError, match="Gram matrices of 600 inducing points in 2 layers"):
        lookup(NET, MuP(), deep(inducing=Inducing(600))).check(many)


@pytest.mark.parametrize(
    "nus, match",
    [
        ((3.0, 2.0), "hidden layer 2, .*, is singular"),
        (
            (math.inf, math.inf),
            "outputs' covariance is singular .* give Inducing fewer points than 3",
        ),
    ],
)
def test_singular_gram_matrices(nus, match, monkeypatch):
    """Of rows of zeros, which no one else chooses."""
    monkeypatch.setattr("widthwise.limits.dkm.full.JITTERS", ())
    plain = Dense(weight_variance=1.0)
    net = plain >> Rbf() >> plain >> Rbf() >> Readout(weight_variance=1.0)
    with pytest.raises(NotSolvable, match=match):
        learn(net, X, Y, inducing=np.zeros((3, 6)), scaling=MuP(), nus=nus, noise=NOISE)
