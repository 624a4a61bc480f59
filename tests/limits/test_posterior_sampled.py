"""The rich posteriors against finite models with replicated outputs, sampled by HMC (blackjax).

A layer of N units and N copies of the outputs, each with the targets: the units' Gram matrix has
the limits' saddle in the mean, but for one over N.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.learner import Posterior
from widthwise.limits import lookup
from widthwise.limits.tilted.saddle import Hidden, Posed
from widthwise.limits.tilted.settle import settled
from widthwise.network import Dense, Rbf, Readout, Relu, Tanh
from widthwise.problem import Problem
from widthwise.scaling import MuP

blackjax = pytest.importorskip("blackjax")
pytestmark = pytest.mark.slow

PRIOR = np.array([[1.5, 0.6], [0.6, 1.0]])
TARGETS = np.array([[1.3], [-0.9]])
NOISE = 0.1
CHAINS, BURN, LEAPS = 4, 300, 16


class Sampled(NamedTuple):
    """Means over draws with their standard errors, from the spread of the chains."""

    mean: Any
    error: Any


def evidence(covariance, y):
    """log p(y) of one copy of the outputs, but for a constant."""
    lower = jnp.linalg.cholesky(covariance + NOISE * jnp.eye(len(covariance)))
    half = jax.scipy.linalg.solve_triangular(lower, jnp.asarray(y), lower=True)
    return -y.shape[1] * jnp.sum(jnp.log(jnp.diagonal(lower))) - jnp.sum(half**2) / 2


def sampled(density, read, start, draws: int, seed: int = 0, step: float = 0.1) -> Sampled:
    """HMC from draws of the prior: the step adapts to 80 % acceptance, and then stays."""

    def kernel(step):
        scale = jax.tree.map(lambda leaf: jnp.ones(leaf.size), start)
        size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(scale))
        return blackjax.hmc(density, step, jnp.ones(size), LEAPS)

    def move(state, at):
        (state, log_step), key = state, at
        lot, own = jax.random.split(key)
        length = jnp.exp(log_step) * jax.random.uniform(lot, minval=0.7, maxval=1.0)
        state, told = kernel(length).step(own, state)
        return (state, log_step), (read(state.position), told.acceptance_rate)

    def adapt(state, key):
        (state, log_step), (_, rate) = move(state, key)
        return (state, log_step + 0.1 * (rate - 0.8)), None

    def chain(key):
        first, burn, keep = jax.random.split(key, 3)
        leaves, tree = jax.tree.flatten(start)
        keys = jax.random.split(first, len(leaves))
        drawn = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        state = kernel(step).init(jax.tree.unflatten(tree, drawn))
        state = jax.lax.scan(adapt, (state, jnp.log(step)), jax.random.split(burn, BURN))[0]
        found = jax.lax.scan(move, state, jax.random.split(keep, draws))[1][0]
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)

    means = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(seed), CHAINS))
    means = jax.tree.map(np.asarray, means)
    return Sampled(
        jax.tree.map(lambda leaf: np.mean(leaf, axis=0), means),
        jax.tree.map(lambda leaf: np.std(leaf, axis=0, ddof=1) / math.sqrt(CHAINS), means),
    )


def moments(f, features):
    """The Gram matrix of features and the kurtosis' two moments of f."""
    return features.T @ features / len(f), jnp.mean(f**2, axis=0), jnp.mean(f**4, axis=0)


GOLDEN = {
    "tanh": ([0.49791, -0.24063, 0.32611], [2.436, 2.950], jnp.tanh),
    "relu": (
        [1.40109, 0.11670, 0.71260], [3.511, 3.425], lambda f: math.sqrt(2) * jax.nn.relu(f)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_finite_networks_come_to_the_tilted_saddle_as_one_over_width(name, double):
    gram, kurtosis, function = GOLDEN[name]
    root = np.linalg.cholesky(PRIOR)
    apart, chance = [], []
    for width in (16, 64, 256):

        def read(z):
            f = z @ root.T
            return moments(f, function(f))

        def density(z, width=width):
            return width * evidence(read(z)[0], TARGETS) - jnp.sum(z**2) / 2

        found = sampled(density, read, jnp.zeros((width, 2)), 40_000 // LEAPS)
        upper = np.triu_indices(2)
        apart.append(np.linalg.norm(found.mean[0][upper] - gram))
        chance.append(np.linalg.norm(found.error[0][upper]))
        print(
            name,
            width,
            found.mean[0][upper],
            "apart",
            apart[-1],
            "+-",
            chance[-1],
            "kurtosis",
            found.mean[2] / found.mean[1] ** 2,
        )
    assert apart[0] > 3 * chance[0]
    scale = 16 * apart[0]
    for width, one, error in zip((64, 256), apart[1:], chance[1:], strict=True):
        assert one < 1.6 * scale / width + 3 * error
    np.testing.assert_allclose(found.mean[2] / found.mean[1] ** 2, kurtosis, rtol=0.03)


def test_two_layers(double):
    """The tilt of a layer that another stands behind, and biases."""
    root, width, weight, bias = np.linalg.cholesky(PRIOR), 128, 1.5, 0.2
    affine = ((weight, bias), (1.0, 0.0))
    hidden = (Hidden((Tanh(),), 1.0, True), Hidden((Relu(),), 2.0, True))
    saddle = settled(hidden, Posed(PRIOR, root, affine, TARGETS, NOISE))

    def read(z):
        first = jnp.tanh(z[0] @ root.T)
        gram = first.T @ first / width
        f = z[1] @ jnp.linalg.cholesky(weight * gram + bias).T
        return gram, jax.nn.relu(f).T @ jax.nn.relu(f) / len(f)

    def density(z):
        return width * evidence(read(z)[1], TARGETS) - sum(jnp.sum(part**2) for part in z) / 2

    start = (jnp.zeros((width, 2)), jnp.zeros((2 * width, 2)))
    found = sampled(density, read, start, 2500)
    for law, mean, error in zip(saddle.laws, found.mean, found.error, strict=True):
        moved = np.linalg.norm(law.gram - mean)
        print(law.gram.ravel(), mean.ravel(), moved, np.linalg.norm(error))
        assert moved < 2 / width + 3 * np.linalg.norm(error)


def test_deep_gaussian_processes_come_to_the_deep_kernel_machine(double):
    """Forty rows and 64 copies: within 1 / 64 and three standard errors."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6))
    y = np.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    width = 64
    net = Dense() >> Rbf(0.3) >> Readout(weight_variance=1.0)
    problem = Problem(x, y, x[:2], y[:2], 0.0, "regression")
    learner = Posterior(noise=NOISE, prior="deep_gp", nu=1.0)
    state: Any = lookup(net, MuP(), learner).prepare(problem, order=0, logs=2).train().state
    root, whitened = state.known.roots[0], state.known.whitened[0]
    learned = root @ whitened @ whitened.T @ root.T

    def read(z):
        f = z @ root.T
        return f.T @ f / width

    def density(z):
        gram = read(z)
        norms = jnp.diagonal(gram)
        kernel = jnp.exp(-0.3 * (norms[:, None] + norms - 2 * gram))
        return width * evidence(kernel, y) - jnp.sum(z**2) / 2

    found = sampled(density, read, jnp.zeros((width, root.shape[1])), 2500)
    apart = np.linalg.norm(found.mean - learned) / np.linalg.norm(learned)
    chance = np.linalg.norm(found.error) / np.linalg.norm(learned)
    print(
        "apart",
        apart,
        "+-",
        chance,
        "prior",
        np.linalg.norm(root @ root.T - learned) / np.linalg.norm(learned),
    )
    assert apart < 1 / width + 3 * chance
