"""The tilted posterior: its saddle, what the saddle obeys, and the limit as a member."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.data import from_arrays
from widthwise.family import Member
from widthwise.kernels import kernel_matrix
from widthwise.learner import Inducing, Posterior
from widthwise.limits import EmptyCell, TiltedPosterior, linear_grams, lookup
from widthwise.limits.tilted.ends import slowest_fall
from widthwise.limits.tilted.extend import Rows, _under_law
from widthwise.limits.tilted.saddle import Hidden, Posed
from widthwise.limits.tilted.settle import Law, Saddle, settled
from widthwise.network import Dense, Erf, LayerNorm, Monomial, Readout, Relu, Sign, Tanh
from widthwise.problem import Problem
from widthwise.run import Run
from widthwise.scaling import NTK, MuP

INF = math.inf
# the example of the theory page: two rows, one column of targets
PRIOR = np.array([[1.5, 0.6], [0.6, 1.0]])
TARGETS = np.array([[1.3], [-0.9]])
NOISE = 0.1


def posed(affine: Any = ((1.0, 0.0),), first=PRIOR, y=TARGETS) -> Posed:
    return Posed(first, np.linalg.cholesky(first), affine, y, NOISE)


@functools.cache
def saddle(function: Any, nu: float = 1.0, weight: float = 1.0) -> Saddle:
    return settled((Hidden((function,), nu, True),), posed(((weight, 0.0),)))


def kurtosis(law: Law) -> np.ndarray:
    f = law.z @ law.root.T
    return law.weights @ f**4 / (law.weights @ f**2) ** 2


# The saddle on grids


def test_tanh_of_the_theory_page():
    [law] = saddle(Tanh()).laws
    np.testing.assert_allclose(law.gram, [[0.4979, -0.2406], [-0.2406, 0.3261]], atol=5e-5)
    np.testing.assert_allclose(kurtosis(law), [2.436, 2.950], atol=5e-4)


def test_relu_of_the_theory_page():
    """Its digits are those of 200 x 200 Gauss-Hermite nodes, which the kink leaves 0.3 % off."""
    [law] = saddle(Relu(), weight=2.0).laws
    page = np.array([[1.4046, 0.1187], [0.1187, 0.7132]])
    np.testing.assert_allclose(2 * law.gram, page, atol=4e-3)
    np.testing.assert_allclose(
        2 * law.gram, [[1.401092, 0.116699], [0.116699, 0.712604]], atol=1e-6
    )
    np.testing.assert_allclose(kurtosis(law), [3.509, 3.428], atol=6e-3)


@pytest.mark.parametrize(
    "function, weight, page, machine",
    [
        pytest.param(
            Tanh(),
            1.0,
            [0.5818, -0.2196, 0.3223],
            [0.45438, -0.19613, 0.31691],
            marks=pytest.mark.slow,
        ),
        (Relu(), 2.0, [0.9674, -0.2894, 0.5052], [1.50303, 0.32344, 0.83683]),
    ],
    ids=["tanh", "relu"],
)
def test_gaussian_machines_are_other_limits(function, weight, page, machine):
    """Gaussian activations, as on the theory page, whose prior Gram matrix of ReLU has an error of
    quadrature, and Gaussian pre-activations, as in the deep kernel machine of the same network."""
    net = Dense(weight_variance=1.0) >> function >> Readout(weight_variance=weight)
    x, upper = np.linalg.cholesky(PRIOR) * math.sqrt(2), np.triu_indices(2)
    prior = kernel_matrix(net, x, which="nngp")
    [activations] = linear_grams(prior, TARGETS, (1.0,), noise=NOISE)
    np.testing.assert_allclose(activations[upper], page, atol=6e-4)
    problem = Problem(x, TARGETS, x, TARGETS, 0.0, "regression")
    learner = Posterior(noise=NOISE, prior="deep_gp")
    state: Any = lookup(net, MuP(), learner).prepare(problem, order=0, logs=2).train().state
    found = state.factor.lower @ state.factor.lower.T - NOISE * np.eye(2)
    np.testing.assert_allclose(found[upper], machine, atol=1e-4)
    tilted = weight * saddle(function, weight=weight).laws[0].gram
    for other in (activations, found):
        assert np.linalg.norm(tilted - other) > 0.08 * np.linalg.norm(tilted)


def test_the_objective_is_stationary(double):
    """log p(y | G(q)) - nu KL(q | N(0, K)), by another quadrature, over all tilts."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    prior = np.outer(weights, weights).ravel() / weights.sum() ** 2
    features = jnp.tanh(z @ np.linalg.cholesky(PRIOR).T)

    def objective(tilt):
        exponent = -jnp.sum((features @ tilt) * features, axis=1) / 2
        normal = jax.scipy.special.logsumexp(exponent, b=prior)
        law = prior * jnp.exp(exponent - normal)
        gram = features.T @ (law[:, None] * features)
        noisy = gram + NOISE * jnp.eye(2)
        fit = -jnp.linalg.slogdet(noisy)[1] / 2 - jnp.sum(
            TARGETS * jnp.linalg.solve(noisy, TARGETS) / 2
        )
        return fit - (law @ exponent - normal)  # nu 1

    [tilt] = saddle(Tanh()).tilts
    slope, at_prior = (np.asarray(jax.grad(objective)(jnp.asarray(t))) for t in (tilt, 0 * tilt))
    assert np.abs(slope).max() < 1e-5 * np.abs(at_prior).max()
    way = np.array([[1.0, 0.3], [0.3, -0.7]]) * 1e-2
    assert all(objective(tilt + sign * way) < objective(tilt) for sign in (1, -1))


def test_without_a_nonlinearity_it_is_the_linear_machine():
    """In two layers, whose weights have variances of their own."""
    affine, nus = ((0.5, 0.0), (3.0, 0.0)), (1.0, 2.0)
    found = settled(tuple(Hidden((), nu, True) for nu in nus), posed(affine))
    # with variances 1 throughout, layers are multiplied by those behind them
    expected = linear_grams(1.5 * PRIOR, TARGETS, nus, noise=NOISE)
    np.testing.assert_allclose(1.5 * found.laws[0].gram, expected[0], rtol=1e-6)
    np.testing.assert_allclose(3.0 * found.laws[1].gram, expected[1], rtol=1e-6)


@pytest.mark.slow
def test_a_layer_with_infinite_nu_keeps_the_prior():
    affine = ((2.0, 0.1), (1.0, 0.0))
    early = settled((Hidden((Erf(),), INF, False), Hidden((Tanh(),), 1.0, True)), posed(affine))
    alone = settled((Hidden((Tanh(),), 1.0, True),), posed(first=2.0 * early.laws[0].gram + 0.1))
    np.testing.assert_allclose(early.laws[1].gram, alone.laws[0].gram, rtol=1e-7)
    late = settled((Hidden((Tanh(),), 1.0, True), Hidden((Erf(),), INF, False)), posed(affine))
    large = settled((Hidden((Tanh(),), 1.0, True), Hidden((Erf(),), 1e5, True)), posed(affine))
    for one, other in zip(late.laws, large.laws, strict=True):
        np.testing.assert_allclose(one.gram, other.gram, rtol=5e-4)
    assert np.abs(late.laws[0].gram - saddle(Tanh()).laws[0].gram).max() > 1e-3


def test_order_of_rows():
    turned = settled(
        (Hidden((Tanh(),), 1.0, True),), posed(first=PRIOR[::-1, ::-1], y=TARGETS[::-1])
    )
    np.testing.assert_allclose(
        turned.laws[0].gram[::-1, ::-1], saddle(Tanh()).laws[0].gram, rtol=1e-7
    )


# The saddle by chains


@pytest.mark.slow
@pytest.mark.parametrize("function, nu", [(Tanh(), 1.0), (Relu(), 0.3)], ids=["tanh", "relu"])
def test_chains_agree_with_the_grid(function, nu):
    found = settled((Hidden((function,), nu, False),), posed())
    expected = saddle(function, nu).laws[0]
    apart = np.linalg.norm(found.laws[0].gram - expected.gram) / np.linalg.norm(expected.gram)
    assert found.standing.rests and 1e-4 < found.errors[0] < 0.05
    assert apart < 3 * found.errors[0]
    np.testing.assert_allclose(kurtosis(found.laws[0]), kurtosis(expected), rtol=0.1)
    fits = [
        NOISE * np.linalg.solve(law.gram + NOISE * np.eye(2), TARGETS)
        for law in (found.laws[0], expected)
    ]
    assert np.sqrt(np.mean((fits[0] - fits[1]) ** 2)) < 3 * found.fit_error


@pytest.mark.slow
@pytest.mark.parametrize("nus", [(1.0,), (0.1,), (1.0, 2.0), (0.2, 0.3), (1.0, 100.0)], ids=str)
def test_chains_agree_with_the_linear_machine(nus):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 8))
    gram, y = x @ x.T / 8, np.sin(2 * x[:, :1]) + x[:, 1:2]
    found = settled(
        tuple(Hidden((), nu, False) for nu in nus), posed(((1.0, 0.0),) * len(nus), gram, y)
    )
    expected = linear_grams(gram, y, nus, noise=NOISE)
    for law, other, error in zip(found.laws, expected, found.errors, strict=True):
        assert np.linalg.norm(law.gram - other) < 3.5 * error * np.linalg.norm(other)


def test_a_law_without_an_end():
    """Squares: whatever the prior, a tilt that pulls outwards wins."""
    y = np.array([[3.0], [2.0]])
    with pytest.raises(EmptyCell, match="no law is left.*bounded function"):
        settled((Hidden((Monomial(2),), 1.0, True),), posed(y=y))
    one, z = np.eye(1), np.array([[1.0], [-1.0]])
    for tilt, fall in ((-0.9, 0.1), (-1.1, -0.1), (2.0, 1.0)):
        with jax.enable_x64(True):
            found = slowest_fall((Relu(),), one, tilt * one, jnp.asarray(z))
        assert float(found) == pytest.approx(fall)


# New rows


def test_new_rows_by_another_quadrature(double):
    """Two new rows given two training rows: a Gaussian in two dimensions at every point."""
    inner = np.array([[1.2, 0.5], [0.5, 0.8]])
    cross = np.array([[0.7, -0.2], [0.3, 0.4]])
    law = saddle(Tanh()).laws[0]
    law = jax.tree.map(jnp.asarray, law._replace(z=law.z[::40], weights=law.weights[::40]))
    along = jax.scipy.linalg.solve_triangular(law.root, cross.T, lower=True).T
    rows = Rows(jnp.asarray(cross), jnp.diagonal(jnp.asarray(inner)), jnp.asarray(inner))
    found, least = _under_law((Tanh(),), law, along, rows)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    pairs = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    open_ = inner - np.asarray(along @ along.T)
    noise = pairs @ np.linalg.cholesky(open_).T
    mass = np.outer(weights, weights).ravel() / weights.sum() ** 2
    values = np.tanh(np.asarray(law.z @ along.T)[:, None] + noise)
    among = np.einsum("s,j,sja,sjb->ab", law.weights, mass, values, values)
    trained = np.tanh(np.asarray(law.z @ law.root.T))
    crossed = np.einsum("s,j,sja,sb->ab", law.weights, mass, values, trained)
    np.testing.assert_allclose(found.among, among, rtol=1e-6)
    np.testing.assert_allclose(found.cross, crossed, rtol=1e-6)
    np.testing.assert_allclose(found.variances, np.diagonal(among), rtol=1e-6)
    assert float(least) == pytest.approx(np.diagonal(open_).min() / 1.2)


# The limit as a member


RNG = np.random.default_rng(2)
X = RNG.normal(size=(12, 3))
DATA = from_arrays(X, np.sin(2 * X[:, 0]) + X[:, 1], task="regression", test=4)
NET = Dense() >> Tanh() >> Readout(weight_variance=1.0)


@pytest.fixture(scope="module")
def run() -> Run:
    return Member(NET, INF, MuP(), Posterior(noise=0.1, nu=1.0)).train(DATA)


def test_member(run, tmp_path):
    assert run.limit == "TiltedPosterior"
    assert "rounds of 1024 chains" in run.notes[0] and "% of its norm" in run.notes[0]
    state: Any = run.state
    fitted = DATA.y_train - state.noise * state.weights
    again = run.predict(DATA.x_train, covariance=True)
    np.testing.assert_allclose(again.value, fitted, rtol=1e-6, atol=1e-8)
    found = run.predict(DATA.x_test, covariance=True)
    np.testing.assert_allclose(found.value, run.predict(DATA.x_test).value, rtol=1e-9)
    np.testing.assert_allclose(found.value, run.trajectory.predictions[-1], rtol=1e-9)
    one = run.predict(DATA.x_test[:1], covariance=True)
    assert one.std is not None and found.std is not None
    np.testing.assert_allclose(one.std, found.std[:1], rtol=1e-6)
    assert np.linalg.eigvalsh(found.covariance)[0] > -1e-9
    [kernels] = run.trajectory.kernels.values()
    assert kernels.shape == (2, 4, 4)
    run.save(tmp_path / "run")
    np.testing.assert_array_equal(
        Run.load(tmp_path / "run").predict(DATA.x_test).value, run.predict(DATA.x_test).value
    )
    with pytest.raises(ValueError, match="columns"):
        run.predict(DATA.x_test[:, :2])


@pytest.mark.slow
def test_infinite_nu_is_the_nngp(run):
    net = Dense(bias_variance=0.2) >> Erf() >> Dense(times=2) >> Relu() >> Readout()
    found = Member(net, INF, MuP(), Posterior(noise=0.1, nu=INF)).train(DATA)
    wanted = Member(net, INF, NTK(), Posterior(noise=0.1)).train(DATA)
    one, other = (r.predict(DATA.x_test, covariance=True) for r in (found, wanted))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-6, atol=1e-9)
    assert one.covariance is not None and other.covariance is not None
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-6, atol=1e-9)
    nngp = Member(NET, INF, NTK(), Posterior(noise=0.1)).train(DATA)
    moved = run.predict(DATA.x_test).value - nngp.predict(DATA.x_test).value
    assert np.abs(moved).max() > 0.02


@pytest.mark.parametrize(
    "net, settings, match",
    [
        (NET, {"prior": "deep_gp"}, "DeepKernelMachine serves prior='deep_gp'"),
        (NET, {"kernel": "ntk"}, "leave kernel='ntk' out"),
        (NET, {"likelihood": "categorical"}, "use likelihood='gaussian'"),
        (NET, {"inducing": Inducing(3)}, "leave inducing out"),
        (Dense() >> Readout(), {}, "DeepKernelMachine serves linear networks"),
        (Dense() >> Sign() >> Readout(), {}, r"Sign\(\) jumps"),
        (Dense() >> LayerNorm() >> Tanh() >> Readout(), {}, r"has LayerNorm\(\): leave it out"),
    ],
    ids=["deep_gp", "ntk", "categorical", "inducing", "linear", "jump", "layer norm"],
)
def test_what_it_is_not_for(net, settings, match):
    sentence = TiltedPosterior(net, MuP(), Posterior(**settings)).refusal()
    assert sentence is not None and re.search(match, sentence)


@pytest.mark.parametrize(
    "rows, nu, match",
    [
        (201, 1.0, "at most 200, and 201 came"),
        (3, (1.0, 2.0), "2 numbers and the network 1"),
        (3, 0.0, "give nu over 0"),
    ],
)
def test_problems_that_it_refuses(rows, nu, match):
    x, y = np.zeros((rows, 2)), np.zeros((rows, 1))
    limit = TiltedPosterior(NET, MuP(), Posterior(nu=nu))
    with pytest.raises(EmptyCell, match=match):
        limit.check(Problem(x, y, x, y, 0.0, "regression"))
