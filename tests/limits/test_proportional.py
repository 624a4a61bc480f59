"""The proportional limit, against networks of finite width, whose posterior is exact."""

import math

import numpy as np
import pytest
import scipy.optimize

from widthwise.finite.deep_linear import (
    convolution_mixture,
    gated_mixture,
    outputs_mixture,
    scale_mixture,
)
from widthwise.kernels import position_kernels
from widthwise.limits import condition
from widthwise.limits.proportional import (
    gate_blocks,
    patch_blocks,
    proportional,
    proportional_blocks,
    scale_at_depth,
    scale_at_effective_depth,
)
from widthwise.limits.proportional.action import least_action, prior_cost
from widthwise.network import Conv
from widthwise.scaling import NTK


def level(rows: int, power: float):
    return np.eye(rows), np.full((rows, 1), math.sqrt(power))


def regression(rows: int, outputs: int = 1, seed: int = 0):
    """Kernel and targets that are larger than the kernel expects."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2 * rows))
    kernel = x @ x.T / (2 * rows)
    mixing = np.array([[1.6, 0.5], [0.0, 0.9]])[:outputs, :outputs]
    return kernel, np.linalg.cholesky(kernel) @ rng.normal(size=(rows, outputs)) @ mixing


@pytest.mark.parametrize("ratio, power", [(0.5, 2.0), (0.8, 0.3), (4.0, 0.1), (3.0, 20.0)])
def test_scale_of_one_layer_is_the_quadratics_root(ratio, power):
    wanted = ((1 - ratio) + math.sqrt((1 - ratio) ** 2 + 4 * ratio * power)) / 2
    assert math.isclose(scale_at_depth(ratio, power, 1), wanted, rel_tol=1e-12)
    rows = 40
    found = proportional(*level(rows, power), (round(rows / ratio),))
    wanted = scale_at_depth(rows / round(rows / ratio), power, 1)
    np.testing.assert_allclose(found.order, wanted, rtol=1e-7)


@pytest.mark.parametrize(
    "depth, ratio, power, scale", [(1, 0.5, 2.0, 1.28078), (1, 0.8, 0.3, 0.60000),
     (2, 0.5, 2.0, 1.43384), (5, 0.5, 2.0, 1.65143)],
)  # fmt: skip
def test_scales_of_several_layers(depth, ratio, power, scale):
    found = scale_at_depth(ratio, power, depth)
    assert abs(found - scale) < 6e-6
    by_action = proportional(*level(round(40 * ratio), power), (40,) * depth)
    np.testing.assert_allclose(by_action.order, found, rtol=1e-7)


@pytest.mark.parametrize(
    "effective, scale",
    [(0.1, 1.12909), (0.5, 1.44263), (1, 1.65947), (2, 1.89464), (8, 2.26787)],
)
def test_effective_depth(effective, scale):
    assert abs(scale_at_effective_depth(effective, 2.5) - scale) < 6e-6
    # many layers of a very wide network
    width, rows = 10**7, 1000
    depth = round(effective * width / rows)
    assert abs(scale_at_depth(rows / width, 2.5, depth) - scale) < 1e-3
    assert abs(scale_at_effective_depth(1e6, 2.5) - 2.5) < 1e-4
    assert scale_at_effective_depth(0.0, 2.5) == 1


def test_with_noise_the_distance_to_the_exact_posterior_falls_as_the_width():
    apart, predicted = [], []
    for width in (25, 100, 400):
        kernel, y = regression(width // 2 + 4)
        train, cross, y = kernel[:-4, :-4], kernel[-4:, :-4], y[:-4]
        limit = proportional(train, y, (width,), 0.2)
        exact = scale_mixture(train, y, (width,), 0.2)
        apart.append(width * (exact.moment(1) - limit.order.item()))
        values = [one.predict(cross).value for one in (limit, exact)]
        predicted.append(width * np.abs(values[0] - values[1]).max())
    assert 0.1 < min(apart) and max(apart) < 1.5
    assert max(predicted) < 1.5


def test_evidence_to_leading_order():
    apart = []
    for width in (20, 80, 320):
        kernel, y = level(width // 2, 2.0)
        limit, exact = (make(kernel, y, (width,) * 2) for make in (proportional, scale_mixture))
        apart.append(limit.log_evidence - exact.log_evidence)
    assert np.ptp(apart) < 0.05 and abs(apart[-1]) < 1


@pytest.mark.parametrize("widths, noise", [((80,), 0.2), ((80, 80), 0.0), ((160, 60, 90), 0.2)])
def test_covariance_of_outputs_is_the_exact_posteriors(widths, noise):
    kernel, y = regression(40, 2)
    limit = proportional(kernel, y, widths, noise)
    exact = outputs_mixture(kernel, y, widths, noise, samples=8000)
    error = 3.0 / min(widths)
    assert np.abs(exact.mean() - limit.order).max() < error
    assert np.abs(limit.order - np.eye(2)).max() > 2 * error
    cross, variance = kernel[:3], np.diagonal(kernel)[:3]
    found, wanted = (one.predict(cross, variance) for one in (limit, exact))
    np.testing.assert_allclose(found.value, wanted.value, atol=error)
    assert found.covariance is not None and wanted.covariance is not None
    np.testing.assert_allclose(found.covariance, wanted.covariance, atol=error)


def test_without_noise_each_eigenvalue_has_its_own_scale():
    kernel, y = regression(40, 2)
    powers, vectors = np.linalg.eigh(y.T @ np.linalg.solve(kernel, y) / 40)
    scales = [scale_at_depth(40 / 80, power, 3) for power in powers]
    found = proportional(kernel, y, (80,) * 3).order
    np.testing.assert_allclose(found, (vectors * scales) @ vectors.T, rtol=1e-6)


def test_rotated_outputs_and_infinite_widths():
    kernel, y = regression(20, 2)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    found, turned = (proportional(kernel, z, (30, 40), 0.1).order for z in (y, y @ turn))
    np.testing.assert_allclose(turned, turn.T @ found @ turn, atol=1e-7)
    wide = proportional(kernel, y, (math.inf,), 0.1)
    plain = condition(kernel, y, 0.1, cross=kernel[:2], prior=kernel[:2, :2])
    predicted = wide.predict(kernel[:2], np.diagonal(kernel)[:2])
    np.testing.assert_allclose(predicted.value, plain.value, rtol=1e-10)
    assert predicted.covariance is not None and plain.covariance is not None
    wanted = np.diagonal(plain.covariance)[:, None, None] * np.eye(2)
    np.testing.assert_allclose(predicted.covariance, wanted, atol=1e-10)
    assert np.abs(proportional(kernel, y, (10**7,), 0.1).order - np.eye(2)).max() < 1e-5


def test_the_least_of_two_valleys():
    """Small targets under much noise: signal or none, and the exact posterior decides alike."""
    kernel = np.ones((30, 30)) + 1e-3 * np.eye(30)
    for size in (0.01, 3.0):
        y = np.full((30, 1), size)
        limit = proportional(kernel, y, (200,) * 4, 0.1)
        exact = scale_mixture(kernel, y, (200,) * 4, 0.1)
        assert abs(limit.order.item() - exact.moment(1)) < 0.05


@pytest.mark.parametrize("widths", [(7,), (3, 11, 5)])
def test_cost_of_the_prior_is_the_least_over_its_factors(widths):
    order = np.array([[2.0, 0.5], [0.5, 0.7]])
    cost, slope = prior_cost(order, widths)
    step = 1e-6 * np.array([[1.0, -2.0], [-2.0, 0.5]])
    rise = (prior_cost(order + step, widths)[0] - prior_cost(order - step, widths)[0]) / 2
    np.testing.assert_allclose(rise, np.sum(slope * step), rtol=1e-6)

    def of_factors(logs, q):
        logs = np.append(logs, np.log(q) - np.sum(logs))
        return np.sum(np.array(widths) * (np.exp(logs) - logs - 1))

    least = [
        scipy.optimize.minimize(of_factors, np.zeros(len(widths) - 1), q, tol=1e-12).fun
        if len(widths) > 1 else of_factors(np.zeros(0), q)
        for q in np.linalg.eigvalsh(order)
    ]  # fmt: skip
    np.testing.assert_allclose(cost, sum(least), rtol=1e-8)


def blocks_problem(rows: int, positions: int = 3):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(rows, rows, positions))
    local = np.einsum("pci,qcj->ijpq", x, x) / rows
    weights = rng.normal(size=(rows, positions)) * np.array([3.0, 1.0, 0.3])
    return local, np.einsum("pci,ci->p", x, weights)[:, None] / math.sqrt(rows * positions)


def test_patches_are_the_exact_posteriors():
    local, y = blocks_problem(44)
    train, cross, prior = local[..., :40, :40], local[..., 40:, :40], local[..., 40:, 40:]
    limit = proportional_blocks(train / 3, y[:40], 80, 0.1)
    exact = convolution_mixture(
        train, y[:40], (80,), grid=(3,), filter_shape=(1,), noise=0.1, samples=2000
    )
    assert np.abs(3 * exact.mean() - limit.order).max() < 3 / 80
    assert np.abs(limit.order - np.eye(3)).max() > 10 / 80
    found, wanted = limit.predict(cross / 3, prior / 3), exact.predict(cross, prior)
    np.testing.assert_allclose(found.value, wanted.value, atol=0.05)
    assert found.covariance is not None and wanted.covariance is not None
    np.testing.assert_allclose(found.covariance, wanted.covariance, atol=0.05)


def test_patches_of_a_networks_kernels(rng):
    """What `position_kernels` has of the hidden layer is what the exact posterior averages."""
    x = rng.normal(size=(12, 3, 2, 4))
    flat = x.reshape(12, 6, 4)
    local = np.einsum("pic,qjc->ijpq", flat, flat) / 4
    hidden = position_kernels(Conv((3, 1), weight_variance=1.0), x, scaling=NTK()).nngp
    y = rng.normal(size=(12, 1))
    limit = proportional_blocks(patch_blocks(hidden), y, 100, 0.5)
    exact = convolution_mixture(
        local, y, (100,), grid=(3, 2), filter_shape=(3, 1), noise=0.5, samples=8000
    )
    wanted = np.tensordot(exact.mean(), local, 2)
    np.testing.assert_allclose(limit.kernel, wanted, atol=0.03)
    assert limit.predict(patch_blocks(hidden)[..., :2, :]).value.shape == (2, 1)


def test_gates_are_the_exact_posteriors(rng):
    kernel, y = regression(43, seed=1)
    gates = (rng.random((43, 2)) < 0.6) + 0.1 * rng.normal(size=(43, 2))
    y = y * gates[:, :1]
    train = kernel[:40, :40], gates[:40], y[:40]
    limit = proportional_blocks(gate_blocks(*train[:2]), train[2], 80, 0.1)
    exact = gated_mixture(*train, (80,), 0.1, samples=2000)
    mean = np.einsum("s,sij->ij", exact.draws.weights, exact.draws.matrices)
    assert np.abs(mean - limit.order).max() < 3 / 80
    cross, prior = kernel[40:, :40], kernel[40:, 40:]
    found = limit.predict(
        gate_blocks(cross, gates[40:], gates[:40]), gate_blocks(prior, gates[40:])
    )
    wanted = exact.predict(cross, gates[40:], prior)
    np.testing.assert_allclose(found.value, wanted.value, atol=0.03)
    assert found.covariance is not None and wanted.covariance is not None
    np.testing.assert_allclose(found.covariance, wanted.covariance, atol=0.03)


def test_minimum_of_blocks_is_where_the_gradient_is_zero():
    """U^-1 = I + Phi / N."""
    local, y = blocks_problem(20)
    found, width = proportional_blocks(local / 3, y, 15, 0.1), 15
    inverse = np.linalg.inv(found.kernel + 0.1 * np.eye(20))
    pull = inverse - inverse @ y @ y.T @ inverse
    phi = np.tensordot(local / 3, pull, 2)
    np.testing.assert_allclose(
        np.linalg.inv(found.order), np.eye(3) + (phi + phi.T) / (2 * width), atol=1e-5
    )


@pytest.mark.parametrize(
    "words, change",
    [
        ("at least 1, or infinity", {"widths": (0,)}),
        ("kernel has shape", {"kernel": np.ones((2, 3))}),
        ("targets have shape", {"targets": np.ones((2, 1))}),
        ("targets are not finite", {"targets": np.full((3, 1), np.inf)}),
        ("give a variance, at least 0", {"noise": -0.1}),
        ("is singular and noise is 0", {"kernel": np.ones((3, 3)), "noise": 0.0}),
        ("depend on each other and noise is 0", {"targets": np.ones((3, 2)), "noise": 0.0}),
    ],
)
def test_refusals(words, change):
    asked = {"kernel": np.eye(3), "targets": np.ones((3, 1)), "widths": (3,), "noise": 0.1}
    with pytest.raises(ValueError, match=words):
        proportional(**(asked | change))


def test_refusals_of_blocks_and_depths():
    blocks, y = np.ones((2, 2, 3, 3)), np.ones((3, 1))
    for words, asked in (
        ("blocks has shape", (blocks[0], y, 4, 0.1)),
        ("targets have shape", (blocks, y[:2], 4, 0.1)),
        ("give one", (blocks, np.ones((3, 2)), 4, 0.1)),
        ("give whole numbers", (blocks, y, 0, 0.1)),
        ("give noise above 0", (blocks, y, 4, 0.0)),
    ):
        with pytest.raises(ValueError, match=words):
            proportional_blocks(*asked)
    with pytest.raises(ValueError, match="of position_kernels"):
        patch_blocks(np.ones((2, 2, 3)))
    for words, asked in (
        ("ratio is -1", (-1.0, 2.0, 1)),
        ("power is 0", (0.5, 0.0, 1)),
        ("depth is 0", (0.5, 2.0, 0)),
    ):
        with pytest.raises(ValueError, match=words):
            scale_at_depth(*asked)
    with pytest.raises(ValueError, match="effective_depth is nan"):
        scale_at_effective_depth(math.nan, 2.0)
    with pytest.raises(ValueError, match="minimum is not found"):
        least_action(lambda q: (-1e3 * np.trace(q), -1e3 * np.eye(1)), (4,), 1)
