"""Laws that kernels of all networks obey, on random compositions."""

import jax
import numpy as np
import pytest
from found import NONLINEARITIES
from slowly import cases

from widthwise.kernels import kernel_matrix, rules
from widthwise.network import Abs, Dense, Elementwise, Identity, LeakyRelu, Readout, Relu
from widthwise.scaling import NTK, MuP, Richness, Standard

CHEAP = [f for f in NONLINEARITIES if not isinstance(f, Elementwise)]


def random_network(seed: int):
    """Up to three blocks of random nonlinearities, variances and skips."""
    rng = np.random.default_rng(seed)

    def dense():
        variance, bias, multiplier = rng.uniform([0.5, 0, 0.1], [3, 0.5, 1])
        return Dense(1, variance, bias, multiplier)

    net = dense()
    for _ in range(rng.integers(1, 3)):
        branch = CHEAP[rng.integers(len(CHEAP))] >> dense()
        kind = rng.integers(4)
        if kind == 0:
            branch = Identity() + branch
        elif kind == 1:
            branch = branch + (CHEAP[rng.integers(len(CHEAP))] >> dense()) + Identity() + Identity()
        net = net >> branch
    return net >> CHEAP[rng.integers(len(CHEAP))] >> Readout()


SEEDS = pytest.mark.parametrize("seed", cases([0], range(1, 12)))


@pytest.fixture
def case(seed):
    rng = np.random.default_rng(seed + 100)
    x = rng.normal(size=(9, 3)) * rng.uniform(0.2, 3.0, size=(9, 1))
    return random_network(seed), np.concatenate([x, x[:2], -x[:1]])


@SEEDS
def test_symmetric_and_positive(case):
    net, x = case
    for scaling in (NTK(), Standard()):
        for kernel in kernel_matrix(net, x, scaling=scaling, width=64):
            np.testing.assert_array_equal(kernel, kernel.T)
            values = np.linalg.eigvalsh(kernel)
            assert values[0] >= -1e-13 * values[-1]


@pytest.mark.slow
@SEEDS
def test_blocks_and_order(case):
    """Whatever else is in the batch, K[i, j] is the kernel of rows i and j."""
    net, x = case
    whole = kernel_matrix(net, x)
    order = np.random.default_rng(0).permutation(len(x))
    cross = kernel_matrix(net, x[:4], x[4:])
    shuffled = kernel_matrix(net, x[order])
    again = kernel_matrix(net, x, x)
    for one, two, three, four in zip(whole, cross, shuffled, again, strict=True):
        size = np.sqrt(np.outer(np.diag(one), np.diag(one)))
        np.testing.assert_allclose(two / size[:4, 4:], (one / size)[:4, 4:], atol=1e-12)
        np.testing.assert_allclose(three / size[order][:, order], (one / size)[order][:, order])
        np.testing.assert_allclose(four / size, one / size, atol=1e-12)


@pytest.mark.slow
@SEEDS
def test_tiles_and_switch(case, monkeypatch):
    net, x = case
    whole = kernel_matrix(net, x)
    monkeypatch.setattr(rules, "TILE", 5)
    tiled, crossed = kernel_matrix(net, x), kernel_matrix(net, x, x)
    with jax.enable_x64(True):
        switched = kernel_matrix(net, x)
    for one, two, three, four in zip(whole, tiled, crossed, switched, strict=True):
        size = np.sqrt(np.outer(np.diag(one), np.diag(one)))
        np.testing.assert_allclose(two / size, one / size, atol=1e-12)
        np.testing.assert_allclose(three / size, one / size, atol=1e-12)
        np.testing.assert_array_equal(four, two)
        np.testing.assert_array_equal(two, two.T)


@pytest.mark.parametrize("f", cases([LeakyRelu(0.2)], [Relu(), Abs()]), ids=repr)
def test_homogeneous_networks_scale(f, rng):
    """K(s x, t y) = s t K(x, y) without biases, at every depth; weight variances factor out."""
    x = rng.normal(size=(6, 3))
    s = rng.uniform(0.1, 10.0, size=6)

    def net(variance):
        dense = Dense(weight_variance=variance, bias_multiplier=0.0)
        return dense >> f >> dense >> f >> Readout(weight_variance=variance, bias_multiplier=0.0)

    for one, two, four in zip(
        *(kernel_matrix(net(v), y) for v, y in ((1.0, x), (1.0, s[:, None] * x), (4.0, x))),
        strict=True,
    ):
        np.testing.assert_allclose(two, np.outer(s, s) * one, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(four, 64 * one, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_rotations_of_the_inputs_change_nothing(rng):
    x = rng.normal(size=(5, 4))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    for one, two in zip(
        kernel_matrix(random_network(3), x),
        kernel_matrix(random_network(3), x @ rotation),
        strict=True,
    ):
        np.testing.assert_allclose(two, one, rtol=1e-11)


@pytest.mark.slow
def test_scaling_decides_what_moves(rng):
    """All lazy scalings share the NNGP kernel; under muP the output starts at zero."""
    x = rng.normal(size=(4, 3))
    net = random_network(1)
    lazy = kernel_matrix(net, x).nngp
    for scaling in (Standard(), Richness(0.5)):
        np.testing.assert_allclose(kernel_matrix(net, x, scaling=scaling).nngp, lazy, rtol=1e-12)
    np.testing.assert_allclose(kernel_matrix(net, x, scaling=MuP()).nngp, 0, atol=1e-12)


def test_refused_inputs(unchecked):
    net = Dense() >> Relu() >> Readout()
    for wrong, words in [
        (np.ones(3), "give rows of features"),
        (np.ones((0, 3)), "at least one row"),
        (np.array([[1.0, np.nan]]), "NaN or infinite"),
    ]:
        with pytest.raises(ValueError, match=words):
            kernel_matrix(net, wrong)
    with pytest.raises(ValueError, match="they must agree"):
        kernel_matrix(net, np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(MemoryError, match="use fewer rows"):
        kernel_matrix(net, np.broadcast_to(np.ones(1), (10**7, 1)))
