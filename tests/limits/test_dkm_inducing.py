"""Inducing variables: their covariances, the bound through them, noise on Gram matrices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.kernels import kernel_matrix
from widthwise.limits.dkm import full
from widthwise.limits.dkm.blocks import (
    JITTER,
    Blocks,
    gaussian,
    mixed,
    of_inducing,
    pooled,
    root_of,
    whitened,
)
from widthwise.limits.dkm.layers import as_drawn, gram_layers
from widthwise.limits.dkm.minibatch import Bound, Fitted, loss, passed, start
from widthwise.limits.dkm.sites import Machine, drawn, sites_of
from widthwise.limits.dkm.stochastic import (
    KEPT,
    exact_divergence,
    freedom,
    noised,
    quadratic_divergence,
    wishart_root,
)
from widthwise.limits.dkm.variational import (
    Outputs,
    draws_of,
    expected_categorical,
    expected_gaussian,
    mean_probabilities,
)
from widthwise.network import (
    AveragePool,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Identity,
    LayerNorm,
    Rbf,
    Readout,
    Relu,
    Unflatten,
)
from widthwise.network.dense import Affine
from widthwise.network.moments import Tangent
from widthwise.network.taps import Taps
from widthwise.scaling import MuP

RNG = np.random.default_rng(5)
VECTORS = Dense() >> Relu() >> Dense(times=2) >> Rbf() >> Readout(weight_variance=1.0)
KEY = jax.random.key(3)
through = jax.jit(lambda bound, fitted, x: passed(bound, fitted, x).behind, static_argnums=0)
value = jax.jit(loss, static_argnums=0)


@pytest.fixture(autouse=True)
def doubled(double):
    """Float64, as the machine has it."""


def machine_of(net=VECTORS, columns=8, points=(6,), nu=0.7, **settings) -> Machine:
    return Machine(net, columns, MuP(), points, nu, **settings)


def shaken(machine: Machine, first, outputs: int) -> Fitted:
    """Something free that is neither the prior nor an optimum."""
    layers = drawn(machine, first, RNG)
    begin = start(layers, sites_of(machine)[-1].points, outputs)
    return jax.tree.map(lambda leaf: leaf + 0.3 * RNG.normal(size=leaf.shape), begin)


def collapsed(machine: Machine, bound: Bound, fitted: Fitted, x, y):
    """The bound with the best outputs, written out; and these outputs, whitened."""
    found = through(bound, fitted, jnp.asarray(x))[-1]
    noise, k = bound.noise, y.shape[1]
    assert noise is not None
    ii = np.asarray(found.ii.xy) + JITTER * np.mean(found.ii.xx) * np.eye(len(found.ii.xx))
    ti, t = np.asarray(found.ti.xy), np.asarray(found.ti.xx)
    q = ti @ np.linalg.solve(ii, ti.T)
    cover = q + noise * np.eye(len(x))
    evidence = -0.5 * np.sum(y * np.linalg.solve(cover, y))
    evidence -= 0.5 * k * (np.linalg.slogdet(cover)[1] + len(x) * np.log(2 * np.pi))
    evidence -= k / (2 * noise) * np.sum(t - np.diagonal(q))
    for number, site in enumerate(s for s in sites_of(machine) if s is not None and s.rank):
        own = [free.triangle for free in fitted.layers if free is not None][number]
        turned = np.asarray(full.whiten(jnp.asarray(own), max(site.nu, 1.0)))
        gram = turned @ turned.T
        evidence -= site.nu * 0.5 * (np.trace(gram) - len(gram) - np.linalg.slogdet(gram)[1])
    sigma = ii + ti.T @ ti / noise
    mean, cover = ii @ np.linalg.solve(sigma, ti.T @ y) / noise, ii @ np.linalg.solve(sigma, ii)
    root = np.linalg.cholesky(ii)
    half = np.linalg.solve(root, np.linalg.solve(root, cover).T)
    lower = np.linalg.cholesky(half)
    triangle = np.tril(lower, -1) + np.diag(np.sqrt(2) * np.log(np.diagonal(lower)))
    return evidence, fitted._replace(mean=np.linalg.solve(root, mean), triangle=triangle)


@pytest.mark.parametrize("columns", [3, 8], ids=["weights", "inducing"])
def test_with_the_best_outputs_the_bound_is_the_collapsed_one(columns):
    x, y = RNG.normal(size=(20, columns)), RNG.normal(size=(20, 2))
    machine = machine_of(columns=columns)
    bound = Bound(machine, 0.2, 20)
    wanted, best = collapsed(machine, bound, shaken(machine, x[:6], 2), x, y)

    def bound_of(fitted):
        return -20 * float(value(bound, fitted, jnp.asarray(x), jnp.asarray(y), KEY))

    assert bound_of(best) == pytest.approx(wanted, abs=1e-8 * abs(wanted))
    for off in (best._replace(mean=best.mean + 0.01), best._replace(triangle=0.9 * best.triangle)):
        assert bound_of(off) < wanted


def test_inducing_points_at_the_rows_are_the_full_machine():
    x, y = RNG.normal(size=(6, 8)), RNG.normal(size=(6, 2))
    machine = machine_of()
    bound = Bound(machine, 0.2, 6)
    fitted = shaken(machine, x, 2)
    fitted = fitted._replace(layers=(fitted.layers[0]._replace(z=x), *fitted.layers[1:]))
    found, _ = collapsed(machine, bound, fitted, x, y)
    layers = gram_layers(VECTORS)
    fixed = full.posed(VECTORS, x, y, scaling=MuP(), nus=(0.7, 1.4), noise=0.2)
    fixed = fixed._replace(root=np.linalg.cholesky(np.asarray(fixed.first.xy)))
    free = [fitted.layers[0].triangle, fitted.layers[2].triangle]
    wanted = -float(full.evaluated(layers, fixed, tuple(free))[0][0])
    assert found == pytest.approx(wanted, rel=1e-4)


def test_the_estimate_is_unbiased_over_batches():
    x, y = RNG.normal(size=(20, 8)), RNG.normal(size=(20, 2))
    machine = machine_of()
    bound, fitted = Bound(machine, 0.2, 20), shaken(machine, x[:6], 2)
    whole = value(bound, fitted, jnp.asarray(x), jnp.asarray(y), KEY)
    parts = [
        value(bound, fitted, jnp.asarray(x[i : i + 4]), jnp.asarray(y[i : i + 4]), KEY)
        for i in range(0, 20, 4)
    ]
    assert float(np.mean(parts)) == pytest.approx(float(whole), rel=1e-12)


def test_expected_likelihoods_against_many_draws():
    mean, variance = RNG.normal(size=(3, 4)), np.array([0.3, 1.0, 2.5])
    found, labels = Outputs(jnp.asarray(mean), jnp.asarray(variance)), np.array([0, 3, 1])
    f = mean + np.sqrt(variance)[:, None] * RNG.normal(size=(200_000, 3, 4))
    chances = np.exp(f - np.log(np.sum(np.exp(f), axis=-1, keepdims=True)))
    logs = np.log(chances[:, np.arange(3), labels])
    draws = draws_of(KEY, 40_000, (3, 4), np.float64)
    ours = np.asarray(expected_categorical(found, jnp.asarray(labels), draws))
    error = logs.std(axis=0) * np.sqrt(1 / 200_000 + 1 / 40_000)
    assert (np.abs(ours - logs.mean(axis=0)) < 4 * error).all()
    apart = np.asarray(mean_probabilities(found, draws)) - chances.mean(axis=0)
    assert np.abs(apart).max() < 4 * np.sqrt(0.25 * (1 / 200_000 + 1 / 40_000))
    y = RNG.normal(size=(3, 4))
    exact = np.mean(np.sum(-((y - f) ** 2) / 0.6 - 0.5 * np.log(2 * np.pi * 0.3), axis=-1), axis=0)
    np.testing.assert_allclose(expected_gaussian(found, jnp.asarray(y), 0.3), exact, rtol=0.02)


# What layers make of the blocks


def test_mixed_inducing_variables_are_sums_of_filtered_ones():
    """Every covariance from the coefficients of one Gaussian weight matrix a tap, written out."""
    shape, channels, m, o = (4, 3), 7, 3, 2
    u, h = RNG.normal(size=(m, channels)), RNG.normal(size=(2, *shape, channels))
    flat = h.reshape(-1, channels)
    ii, ti, t = u @ u.T / channels, flat @ u.T / channels, np.sum(flat**2, axis=1) / channels
    blocks = Blocks(
        of_inducing(jnp.asarray(ii), jnp.asarray(np.diagonal(ii))),
        gaussian(jnp.asarray(t), jnp.asarray(ti), jnp.asarray(np.diagonal(ii))), None, shape,
    )  # fmt: skip
    taps = tuple(
        Taps.of(extent, 3, stride, "SAME") for extent, stride in zip(shape, (2, 1), strict=True)
    )
    mix = RNG.normal(size=(9, m, o))
    own = Affine(Tangent(1.5, 0.0, 0.0), Tangent(0.2, 0.0, 0.0))
    found = mixed(own, taps, jnp.asarray(mix), blocks)
    # coefficients of the weights (tap, channel) and of the bias in one output feature
    size = np.sqrt(1.5 / (9 * channels))
    of_u = [np.append(size * np.einsum("km,mc->kc", mix[..., i], u).ravel(), np.sqrt(0.2))
            for i in range(o)]  # fmt: skip
    of_h = []
    for row in h:
        padded = np.pad(row, ((1, 1), (1, 1), (0, 0)))
        low = [own_taps.low for own_taps in taps]
        for i, j in itertools.product(range(found.shape[0]), range(found.shape[1])):
            at = (2 * i - low[0] + 1, j - low[1] + 1)
            seen = np.pad(padded, ((0, 3), (0, 3), (0, 0)))[at[0] : at[0] + 3, at[1] : at[1] + 3]
            of_h.append(np.append(size * seen.ravel(), np.sqrt(0.2)))
    of_u, of_h = np.array(of_u), np.array(of_h)
    of_u /= np.linalg.norm(of_u, axis=1, keepdims=True)
    np.testing.assert_allclose(found.ii.xy, of_u @ of_u.T, atol=1e-12)
    np.testing.assert_allclose(found.ti.xy, of_h @ of_u.T, atol=1e-12)
    np.testing.assert_allclose(found.ti.xx, np.sum(of_h**2, axis=1), atol=1e-12)


RESIDUAL = Conv() >> (Identity() + (Relu() >> Conv())) >> LayerNorm() >> Relu()
RESIDUAL = Unflatten((4, 4)) >> RESIDUAL >> Conv((2, 2), strides=(2, 2), bias_variance=0.3)


@pytest.mark.parametrize(
    "net",
    [
        Unflatten((4, 4)) >> Conv(bias_variance=0.1) >> Relu() >> Conv(padding="CIRCULAR") >> Rbf(),
        RESIDUAL >> Relu(),
    ],
    ids=["chain", "residual"],
)  # fmt: skip
def test_with_the_priors_gram_matrices_variances_are_the_networks_own(net):
    """Of every position, which the means of the diagonals of its NNGP kernel are."""
    x = RNG.normal(size=(3, 16))
    machine = machine_of(net >> GlobalAveragePool() >> Readout(), 16, (5,), np.inf)
    fitted = start(drawn(machine, RNG.normal(size=(5, 9)), RNG), 5, 1)
    found = through(Bound(machine, 0.1, 3), fitted, jnp.asarray(x))[-3]
    flat = net >> Flatten() >> Readout(weight_variance=1.0)
    wanted = np.diagonal(kernel_matrix(flat, x, scaling=as_drawn(MuP())).nngp)
    means = np.asarray(found.on_grid(found.ti.xx)).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(means, wanted, rtol=1e-10)


@pytest.mark.parametrize("pool", [GlobalAveragePool(), AveragePool() >> GlobalAveragePool()])
def test_pooling_is_exact_where_inducing_variables_explain_all(pool):
    """A linear filter of 9 taps has 9 weights: 9 patches say everything."""
    x = RNG.normal(size=(3, 16))
    net = Unflatten((4, 4)) >> Conv() >> pool >> Readout(weight_variance=1.0)
    machine = machine_of(net, 16, (9,), np.inf)
    fitted = start(drawn(machine, np.eye(9), RNG), 9, 1)
    found = through(Bound(machine, 0.1, 3), fitted, jnp.asarray(x))[-1]
    wanted = np.diagonal(kernel_matrix(net, x, scaling=as_drawn(MuP())).nngp)
    np.testing.assert_allclose(found.ti.xx, wanted, rtol=1e-5)


def test_pooling_counts_what_is_not_explained_as_independent():
    h = RNG.normal(size=(4, 6))  # positions of one row, features
    u = RNG.normal(size=(2, 6))
    ii, ti, t = u @ u.T, h @ u.T, np.sum(h**2, axis=1)
    blocks = Blocks(
        of_inducing(jnp.asarray(ii), jnp.asarray(np.diagonal(ii))),
        gaussian(jnp.asarray(t), jnp.asarray(ti), jnp.asarray(np.diagonal(ii))), None, (4,),
    )  # fmt: skip
    found, least = pooled((np.full((1, 4), 0.25),), blocks, True)
    mean, solved = ti.mean(axis=0), np.linalg.inv(ii)
    left = t - np.einsum("si,ij,sj->s", ti, solved, ti)
    wanted = mean @ solved @ mean + np.sum(left) / 16
    assert found.shape == () and float(least) > 0
    np.testing.assert_allclose(found.ti.xx, [wanted], rtol=1e-5)
    np.testing.assert_allclose(found.ti.xy, mean[None], rtol=1e-12)


def test_whitened_covariances():
    ii = of_inducing(jnp.asarray([[2.0, 0.5], [0.5, 1.0]]), jnp.asarray([2.0, 1.0]))
    side = whitened(root_of(ii), jnp.asarray([[2.0, 0.5]]))
    assert float(jnp.sum(side**2)) == pytest.approx(2.0, rel=1e-5)


# How far Gram matrices are from the prior, and noise on them


def spd(size: int, condition: float) -> np.ndarray:
    vectors = np.linalg.qr(RNG.normal(size=(size, size)))[0]
    return vectors @ np.diag(np.geomspace(1, condition, size)) @ vectors.T


def test_the_quadratic_form_is_the_divergence_to_third_order():
    prior = spd(6, 30.0)
    root = np.linalg.cholesky(prior)
    change = RNG.normal(size=(6, 6))
    change = (change + change.T) / 2
    gaps = []
    for size in (0.004, 0.002):
        gram = root @ (np.eye(6) + size * change) @ root.T
        turned = jnp.asarray(np.linalg.solve(root, np.linalg.cholesky(gram)))
        exact, form = float(exact_divergence(turned)), float(quadratic_divergence(turned))
        ratio = np.linalg.solve(prior, gram)
        wanted = 0.5 * (np.trace(ratio) - 6 - np.linalg.slogdet(ratio)[1])
        assert exact == pytest.approx(wanted, rel=1e-8)
        product = np.linalg.solve(gram, prior) - np.eye(6)
        assert form == pytest.approx(0.25 * np.trace(product @ product), rel=1e-8)
        assert 0.5 * np.linalg.norm(product) ** 2 >= form  # the norm of a matrix not symmetric
        gaps.append(abs(form - exact))
    assert gaps[0] / gaps[1] == pytest.approx(8, rel=0.1)


def test_moments_of_the_noise():
    gram, draws = spd(4, 10.0), 20_000
    root = jnp.asarray(np.linalg.cholesky(gram))
    keys = jax.random.split(KEY, draws)
    found = np.asarray(jax.vmap(lambda key: wishart_root(key, root, 3))(keys))
    drawn = found @ np.swapaxes(found, 1, 2)
    spread = (np.sum(gram**2) + np.trace(gram) ** 2) / 3
    apart = np.sum((drawn - gram) ** 2, axis=(1, 2))
    assert np.linalg.norm(drawn.mean(axis=0) - gram) < 4 * np.sqrt(spread / draws)
    assert apart.mean() == pytest.approx(spread, abs=4 * apart.std() / np.sqrt(draws))
    assert freedom(16, 0.25) == 4 and freedom(2, 0.01) == 1
    blended = np.asarray(jax.vmap(lambda key: noised(key, root, 0.25))(keys[:2000]))
    mixed_up = blended @ np.swapaxes(blended, 1, 2)
    assert np.linalg.eigvalsh(mixed_up)[:, 0].min() > 0.99 * KEPT * np.linalg.eigvalsh(gram)[0]
    assert np.linalg.norm(mixed_up.mean(axis=0) - gram) < 4 * np.sqrt(3 * spread / 2000)


def test_noise_is_in_the_data_term_only():
    x, y = RNG.normal(size=(12, 8)), RNG.normal(size=(12, 1))
    machine = machine_of()
    fitted = shaken(machine, x[:6], 1)
    calm, noisy = Bound(machine, 0.2, 12), Bound(machine, 0.2, 12, regularisation=0.5)
    values = [
        float(value(bound, fitted, jnp.asarray(x), jnp.asarray(y), key))
        for bound, key in ((calm, KEY), (noisy, KEY), (noisy, KEY), (noisy, jax.random.key(9)))
    ]
    assert values[0] != values[1] == values[2] != values[3]
    far = value(calm._replace(quadratic=True), fitted, jnp.asarray(x), jnp.asarray(y), KEY)
    assert float(far) != values[0]
