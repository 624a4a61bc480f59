"""Deep kernel machines: the objective, its gradient, its optimum and what the optimum obeys."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from widthwise.kernels import kernel_matrix
from widthwise.limits.dkm.extend import Known, extend
from widthwise.limits.dkm.full import (
    Fixed,
    Optimum,
    at_prior,
    best_grams,
    divergence,
    evaluated,
    misfit,
    passage,
    posed,
    whiten,
)
from widthwise.limits.dkm.layers import covariance, gram_layers, of_gram
from widthwise.limits.dkm.minimise import minimise
from widthwise.network import Dense, Erf, Gelu, Rbf, Readout, Relu
from widthwise.scaling import MuP

RNG = np.random.default_rng(3)
X, NEW = RNG.normal(size=(8, 6)), RNG.normal(size=(3, 6))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
NET = Dense() >> Relu() >> Dense() >> Rbf(0.3) >> Readout(weight_variance=1.0)
LAYERS = gram_layers(NET)
INF = float("inf")


def fixed_of(net: Any = NET, x=X, y=Y, nus=(2.0, 1.5), noise=0.1) -> Fixed:
    return posed(net, x, y, scaling=MuP(), nus=nus, noise=noise)


def best(fixed: Fixed, layers: Any = LAYERS, start: Any = None) -> Optimum:
    return best_grams(layers, fixed, tolerance=1e-9, start=start)


def grams(found: Optimum) -> list[np.ndarray]:
    return [root @ root.T for root in found.passage.grams if root is not None]


def near(found, expected, rtol: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.linalg.norm(one - other) <= rtol * np.linalg.norm(other)


def second_prior(fixed: Fixed) -> np.ndarray:
    """The prior covariance of the second hidden layer where nu of the first is infinite."""
    with jax.enable_x64(True):
        prior = jax.jit(lambda own, first: covariance(LAYERS[1], own, first).xy)
        return np.asarray(prior(fixed.own[1], fixed.first))


@functools.cache
def usual() -> Optimum:
    return best(fixed_of())


def anywhere(fixed: Fixed, layers: Any, seed: int, size: float = 0.5) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda z: np.tril(size * rng.normal(size=z.shape)), at_prior(layers, fixed))


# The objective


OTHER = Dense(bias_variance=0.3) >> Erf() >> Dense() >> Dense() >> Gelu() >> Readout()


@pytest.mark.parametrize(
    "net", [NET, pytest.param(OTHER, marks=pytest.mark.slow)], ids=["relu, rbf", "others"]
)
def test_gradient_by_finite_differences(net, double):
    """Across rows that coincide with themselves, where angles have no derivative."""
    layers = gram_layers(net)
    fixed = fixed_of(net, nus=tuple(0.7 + i for i in range(len(layers) - 1)))
    at, way = (anywhere(fixed, layers, seed) for seed in (0, 1))

    def moved(step):
        return jax.tree.map(lambda a, b: a + step * b, at, way)

    slope = sum(np.sum(g * w) for g, w in zip(evaluated(layers, fixed, at)[1], way, strict=True))
    above, below = (float(evaluated(layers, fixed, moved(step))[0][0]) for step in (1e-5, -1e-5))
    assert (above - below) / 2e-5 == pytest.approx(float(slope), rel=1e-7)


def test_at_the_prior_it_is_the_log_evidence(double):
    kernel: Any = kernel_matrix(NET, X, which="nngp") + 0.1 * np.eye(8)
    wanted = sum(scipy.stats.multivariate_normal(cov=kernel).logpdf(y) for y in Y.T)
    for nus in ((2.0, 1.5), (1e3, 1e-2)):
        fixed = fixed_of(nus=nus)
        value = -float(evaluated(LAYERS, fixed, at_prior(LAYERS, fixed))[0][0])
        assert value == pytest.approx(wanted, rel=1e-10)


def test_divergence_is_that_of_gaussians(double):
    free, nu = jnp.asarray(np.tril(np.random.default_rng(0).normal(size=(4, 4)))), 2.5
    whitened = np.asarray(whiten(free, nu))
    gram = whitened @ whitened.T
    expected = (np.trace(gram) - 4 - np.linalg.slogdet(gram)[1]) / 2
    assert float(divergence(free, nu)) == pytest.approx(nu * expected, rel=1e-12)


# The optimum


def test_all_starts_lead_to_one_optimum():
    for seed in range(3):
        found = best(usual().fixed, start=anywhere(usual().fixed, LAYERS, seed))
        assert found.minimum.value == pytest.approx(usual().minimum.value, rel=1e-10)
        near(grams(found), grams(usual()), 1e-6)


def test_order_of_rows_and_rotation_of_targets():
    order = np.random.default_rng(0).permutation(8)
    found = best(fixed_of(x=X[order], y=Y[order]))
    near(grams(found), [gram[np.ix_(order, order)] for gram in grams(usual())], 1e-6)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
    found = best(fixed_of(y=Y @ turn))
    near(grams(found), grams(usual()), 1e-6)
    assert found.minimum.value == pytest.approx(usual().minimum.value, rel=1e-10)


def test_slope_in_nu_is_the_divergence():
    nus, apart = usual().fixed.nus, usual().divergences()
    values = [usual().minimum.value]
    for layer, slope in enumerate(apart):
        ends = []
        for sign in (1, -1):
            moved = tuple(nu * (1 + sign * 1e-3 * (i == layer)) for i, nu in enumerate(nus))
            ends.append(best(fixed_of(nus=moved), start=usual().minimum.free).minimum.value)
        assert (ends[0] - ends[1]) / (2e-3 * nus[layer]) == pytest.approx(slope, rel=1e-5)
    # so the objective falls as nu grows
    for factor in (3.0, 10.0, 100.0):
        grown = tuple(factor * nu for nu in nus)
        values.append(best(fixed_of(nus=grown)).minimum.value)
    assert values == sorted(values)


def test_first_order_in_one_over_nu():
    """G = K + (2 / nu) K R'(K) K + O(1 / nu^2), with R the log evidence as a function of G."""
    with jax.enable_x64(True):
        fixed = fixed_of(nus=(INF, 1.0))
        prior = second_prior(fixed)

        def evidence(gram):
            return -misfit(covariance(LAYERS[2], fixed.own[2], of_gram(gram)).xy, Y, 0.1)

        slope = np.asarray(jax.jit(jax.grad(evidence))(jnp.asarray(prior)))
    term = prior @ (slope + slope.T) @ prior
    left = []
    for nu in (1e2, 1e3, 1e4, 1e6):
        [gram] = grams(best(fixed._replace(nus=(INF, nu))))
        left.append(np.linalg.norm(gram - prior - term / nu) / np.linalg.norm(prior))
    assert 80 < left[0] / left[1] < 120 and 80 < left[1] / left[2] < 120
    assert np.linalg.norm(gram - prior) < 1e-5 * np.linalg.norm(prior)


def test_new_rows_leave_the_training_rows_alone():
    """The optimum over training and new rows together, the targets of the latter unknown, is what
    `extend` says."""
    both = fixed_of(x=np.concatenate([X, NEW]), y=np.concatenate([Y, np.zeros((3, 2))]))

    def loss(free):
        found = passage(LAYERS, both, free)
        apart = sum(divergence(own, nu) for own, nu in zip(free, both.nus, strict=True))
        return misfit(found.output[:8, :8], Y, 0.1) + apart, found

    with jax.enable_x64(True):
        evaluate = jax.jit(jax.value_and_grad(loss, has_aux=True))

        def bare(free):
            (value, _), gradient = evaluate(free)
            return value, gradient

        together = minimise(bare, at_prior(LAYERS, both), tolerance=1e-9)
        found = evaluate(together.free)[0][1]
        known = Known(usual().fixed.own, X, usual().passage.roots, usual().passage.whitened)
        told = jax.tree.map(np.asarray, extend(LAYERS, known, jnp.asarray(NEW)))
    assert together.value == pytest.approx(usual().minimum.value, rel=1e-10)
    output = np.asarray(found.output)
    near([output[:8, :8]], [usual().passage.output], 1e-6)
    near([output[8:, :8], output[8:, 8:]], [told.cross, told.among], 1e-6)
    learned = [np.asarray(root) @ np.asarray(root).T for root in found.grams if root is not None]
    near([gram[8:, 8:] for gram in learned], [told.features[i] for i in (0, 2)], 1e-6)
    near([gram[:8, :8] for gram in learned], grams(usual()), 1e-6)


def test_without_its_log_determinant_the_rank_is_that_of_the_targets():
    """The most probable features in front of a linear readout, in place of their Gram matrix."""
    root = np.linalg.cholesky(second_prior(fixed_of(nus=(INF, 1.0))))

    def loss(free):
        whitened = jnp.eye(8) + jnp.tril(free[0])
        gram = jnp.asarray(root) @ whitened
        return misfit(gram @ gram.T, Y, 0.1) + jnp.sum(whitened**2) / 2

    with jax.enable_x64(True):
        evaluate = jax.jit(jax.value_and_grad(loss))
        found = minimise(evaluate, (np.zeros((8, 8)),), tolerance=1e-6)
    sizes = np.linalg.svd(root @ (np.eye(8) + np.tril(found.free[0])), compute_uv=False) ** 2
    assert sizes[2] < 1e-9 * sizes[0] and sizes[1] > 1e-2 * sizes[0]
    assert max(usual().conditions()) < 1e6
