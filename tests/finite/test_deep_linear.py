"""Deep linear networks with one output, against closed forms and draws of their scale."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from widthwise.finite.deep_linear import evidence_grid, log_meijer, scale_mixture
from widthwise.finite.deep_linear.line import line_rule, log_sum

# log G^{m,0}_{0,m}(z | b) by mpmath's meijerg at 40 digits
MEIJER = [
    (0.3, (0.0, 0.5), -0.52308017208563211957),
    (2.5, (0.0, 0.5, -1.5), -2.699616784965098017),
    (7.0, (0.0, 0.0, 0.0), -5.15244558901416307),
    (40.0, (0.0, 2.5, 3.0, -0.5), -3.1089840379823914719),
    (1e-6, (0.0, 1.5, 0.25), 1.1225322305357889485),
    (5.0, (0.5, 0.5), -3.5227876613830828967),
    (300.0, (1.5, 2.0, 2.0, 10.3), 10.58490799904986599),
    (1e-12, (0.5, 0.75), -12.52884090446269122),
]


def problem(rows: int = 3, inputs: int = 5, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs))
    return 1.3**2 * x @ x.T / inputs, 1.3 * rng.normal(size=(rows, 1))


def level(rows: int, power: float):
    """Identity kernel and targets with y^T K^-1 y / n = power, all that an evidence sees."""
    return np.eye(rows), np.full((rows, 1), math.sqrt(power))


@pytest.mark.parametrize("z, parameters, wanted", MEIJER)
def test_meijer_is_mpmaths(z, parameters, wanted):
    found = log_meijer(np.log(z), np.array(parameters))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("log_z", [-12.0, -5.0, 0.0, 3.0, 12.0])
def test_meijer_of_two_parameters_is_a_bessel_function(shift, log_z):
    root = math.exp(log_z / 2)
    wanted = math.log(2 * scipy.special.kve(shift, 2 * root)) - 2 * root + shift * log_z / 2
    found = log_meijer(np.array([log_z]), np.array([0.0, shift]))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-11)


def test_meijer_far_out_and_of_many_parameters():
    # G^{m,0}_{0,m} is about exp(-m z^(1/m)) there
    found = log_meijer(np.array([600.0]), np.array([0.0, 20.0, 20.0]))
    np.testing.assert_allclose(found, -3 * np.exp(200.0), rtol=1e-12)
    # moments: the integral of G z^(s-1) is prod Gamma(b + s)
    parameters = np.full(1600, 200.0)
    for power in (1.0, 2.0):
        nodes, logs = line_rule(
            lambda log_z, power=power: log_meijer(log_z, parameters) + power * log_z, 8400.0, 8500.0
        )
        wanted = 1600 * scipy.special.gammaln(200 + power)
        np.testing.assert_allclose(log_sum(logs), wanted, rtol=1e-13)


def test_meijer_wants_finite_numbers():
    for log_z, parameter in ((np.nan, 0.0), (0.0, np.inf)):
        with pytest.raises(ValueError, match="finite parameters, and z above zero"):
            log_meijer(np.array([log_z]), np.array([parameter, 1.0]))


@pytest.mark.parametrize(
    "widths", [(4,), (4, 6), (3, 3, 3), (5, 2, 9), (1,), (1, 1000), (400,) * 40]
)
def test_closed_form_is_the_quadrature(widths):
    kernel, y = problem()
    found = scale_mixture(kernel, y, widths)
    nearly = scale_mixture(kernel, y, widths, noise=1e-13)
    np.testing.assert_allclose(found.log_evidence, nearly.log_evidence, atol=1e-9)
    for power in (-1.0, 0.5, 1.0, 2.0):
        by_nodes = found.weights @ found.scales**power
        np.testing.assert_allclose(found.moment(power), by_nodes, rtol=1e-9)


@pytest.mark.parametrize("widths", [(4,), (5, 2, 9), (1, 1)])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_evidence_is_that_of_random_weights(widths, noise):
    """4 standard errors of draws of Q; and the posterior's mean of Q likewise."""
    kernel, y = problem()
    rng, count = np.random.default_rng(1), 100_000
    scales = np.prod([rng.chisquare(n, count) / n for n in widths], axis=0)
    values, vectors = np.linalg.eigh(kernel)
    levels = scales[:, None] * values + noise
    fit = (vectors.T @ y)[:, 0] ** 2 / levels
    likelihood = np.exp(-0.5 * np.sum(fit + np.log(2 * np.pi * levels), axis=1))
    found = scale_mixture(kernel, y, widths, noise)
    error = likelihood.std() / likelihood.mean() / math.sqrt(count)
    assert abs(np.log(likelihood.mean()) - found.log_evidence) < 4 * error
    mean = likelihood @ scales / likelihood.sum()
    apart = likelihood * (scales - mean) / likelihood.mean()
    assert abs(mean - found.moment(1)) < 4 * apart.std() / math.sqrt(count)


def test_prediction_is_that_of_random_weights():
    rng, count, noise = np.random.default_rng(2), 200_000, 0.2
    x, y = rng.normal(size=(4, 5)), rng.normal(size=(3, 1))
    kernel = x @ x.T / 5
    weights = [rng.normal(size=(count, 3, 5)) / 5**0.5, rng.normal(size=(count, 1, 3)) / 3**0.5]
    outputs = (weights[1] @ weights[0] @ x.T)[:, 0]
    likelihood = np.exp(-np.sum((outputs[:, :3] - y.T) ** 2, axis=1) / (2 * noise))
    mean = likelihood @ outputs[:, 3] / likelihood.sum()
    apart = likelihood * (outputs[:, 3] - mean) / likelihood.mean()
    found = scale_mixture(kernel[:3, :3], y, (3,), noise)
    predicted = found.predict(kernel[3:, :3], kernel[3:, 3:])
    assert predicted.covariance is not None
    assert abs(predicted.value.item() - mean) < 4 * apart.std() / math.sqrt(count)
    square = likelihood * ((outputs[:, 3] - mean) ** 2 - predicted.covariance.item())
    assert abs(square.mean()) < 4 * square.std() / math.sqrt(count)


def test_without_noise_widths_enter_the_variance_only():
    kernel, y = problem(4, 6)
    train, cross, prior = kernel[:3, :3], kernel[3:, :3], kernel[3:, 3:]
    found = scale_mixture(train, y[:3], (5, 2))
    predicted, plain = (
        scale_mixture(train, y[:3], widths).predict(cross, prior) for widths in ((5, 2), ())
    )
    np.testing.assert_allclose(predicted.value, plain.value, rtol=1e-12)
    assert predicted.covariance is not None and plain.covariance is not None
    np.testing.assert_allclose(predicted.covariance, found.moment(1) * plain.covariance, rtol=1e-10)
    assert scale_mixture(train, y[:3], (5, 2)).predict(cross).covariance is None


def test_infinite_layers_and_none_are_the_gaussian_process():
    kernel, y = problem()
    for noise in (0.0, 0.3):
        plain = scale_mixture(kernel, y, (), noise)
        covered = kernel + noise * np.eye(3)
        wanted = -0.5 * (
            (y.T @ np.linalg.solve(covered, y)).item()
            + np.linalg.slogdet(covered)[1] + 3 * math.log(2 * math.pi)
        )  # fmt: skip
        np.testing.assert_allclose(plain.log_evidence, wanted, rtol=1e-12)
        same = scale_mixture(kernel, y, (math.inf, math.inf), noise)
        assert same.log_evidence == plain.log_evidence and plain.moment(1) == 1
        wide = scale_mixture(kernel, y, (10**6,), noise)
        np.testing.assert_allclose(wide.log_evidence, wanted, atol=1e-5)


def test_order_of_widths_and_duplicates():
    kernel, y = problem()
    found, other = (scale_mixture(kernel, y, w, 0.1) for w in ((5, 2, 9), (9, 5, 2)))
    np.testing.assert_allclose(found.log_evidence, other.log_evidence, rtol=1e-12)
    again = np.repeat(np.repeat(kernel, 2, axis=0), 2, axis=1)
    assert math.isfinite(scale_mixture(again, np.repeat(y, 2, axis=0), (4,), 0.1).log_evidence)


def test_extreme_widths_and_targets():
    kernel, y = problem()
    narrow = scale_mixture(kernel, y, (1,) * 300)
    np.testing.assert_allclose(narrow.moment(1), narrow.weights @ narrow.scales, rtol=1e-7)
    noisy = scale_mixture(np.eye(1), np.ones((1, 1)), (1,) * 100, noise=0.2)
    # the scale is 0 to all digits, so that targets are noise
    np.testing.assert_allclose(noisy.log_evidence, -2.5 - 0.5 * math.log(0.4 * math.pi), atol=1e-9)
    for size in (1e-3, 1e6):
        found = scale_mixture(kernel, size * y, (20,), noise=0.1)
        assert math.isfinite(found.log_evidence) and math.isclose(found.weights.sum(), 1)


@pytest.mark.parametrize(
    "depth, ratio, power, wanted",
    [(1, 0.5, 2.0, (0.467, 0.470)), (1, 0.8, 0.3, (0.471, 0.480)), (2, 0.5, 2.0, (0.897, 0.893)),
     (5, 0.5, 2.0, (1.813, 1.758))],
)  # fmt: skip
def test_first_correction_to_the_proportional_limit(depth, ratio, power, wanted):
    """N (E[Q | y] - u^L) at N = 20 and 640."""
    # u from 1 - u = ratio (1 - power u^-depth), found here by itself
    u = scipy.optimize.brentq(lambda u: 1 - u - ratio * (1 - power / u**depth), 1e-2, 10)
    for width, digits in zip((20, 640), wanted, strict=True):
        exact = scale_mixture(*level(round(ratio * width), power), (width,) * depth).moment(1)
        assert abs(width * (exact - u**depth) - digits) < 6e-4


@pytest.mark.parametrize(
    "effective, scale, gain",
    [(0.1, 1.12851, 8.9), (0.5, 1.44251, 26.1), (1, 1.66063, 35.1), (2, 1.89790, 43.0),
     (8, 2.27611, 52.1)],
)  # fmt: skip
def test_effective_depth(effective, scale, gain):
    rows, width = 200, 20_000
    kernel, y = level(rows, 2.5)
    depth = round(effective * width / rows)
    found, flat = (scale_mixture(kernel, y, (width,) * n) for n in (depth, 0))
    assert abs(found.moment(1) - scale) < 6e-6
    assert abs(found.log_evidence - flat.log_evidence - gain) < 0.06
    assert found.log_evidence - flat.log_evidence < rows / 2 * (2.5 - 1 - math.log(2.5))


def test_depth_beside_width_overshoots():
    """Where depth is not small beside width, the prior's own spread moves the scale."""
    kernel, y = level(8, 2.5)
    assert abs(scale_mixture(kernel, y, (400,) * 1600).moment(1) - 2.745) < 1e-3
    expected = evidence_grid(*level(8, 1.0), (400,), (0, 10, 100, 400))
    assert (np.diff(expected.log_evidence[0]) < 0).all() and expected.depth == 0


@pytest.mark.parametrize(
    "rows, width, fit, exact, machine, saddle",
    [(4, 12, 10, 1.5916, 1.4798, 1.5552), (4, 40, 10, 1.2047, 1.1858, 1.1977),
     (20, 40, 30, 1.6379, 1.4813, 1.6264), (2, 200, 6, 1.0247, 1.0243, 1.0244)],
)  # fmt: skip
def test_learned_gram_matrix_beside_two_limits(rows, width, fit, exact, machine, saddle):
    """E[W_yy] of the hidden layer, what a deep kernel machine has for it, and the saddle's."""
    found = scale_mixture(*level(rows, fit / rows), (width,)).moment(1) + (rows - 1) / width
    assert abs(found - exact) < 6e-5
    # N g^2 - (N - 1) g - fit = 0, and N q^2 - (N - rows) q - fit = 0
    roots = [np.roots([width, -(width - count), -fit]).max() for count in (1, rows)]
    assert abs(roots[0] - machine) < 6e-5
    assert abs(roots[1] + (rows - 1) / width - saddle) < 6e-5

    q = np.linspace(1e-3, 20, 200_001)
    logs = ((width - rows) / 2 - 1) * np.log(q) - width * q / 2 - fit / (2 * q)
    weights = scipy.special.softmax(logs)
    np.testing.assert_allclose(found - (rows - 1) / width, weights @ q, rtol=1e-8)


def test_evidence_grid_scores_and_chooses():
    kernel, y = problem(6, 8)
    found = evidence_grid(kernel, 2 * y, (4, 64, math.inf), (0, 1, 3), noise=0.1)
    assert found.log_evidence.shape == (3, 3)
    wanted = scale_mixture(kernel, 2 * y, (64,) * 3, 0.1).log_evidence
    assert found.log_evidence[1, 2] == wanted
    assert (np.ptp(found.log_evidence[:, 0]), np.ptp(found.log_evidence[2])) == (0, 0)
    row, column = (4, 64, math.inf).index(found.width), (0, 1, 3).index(found.depth)
    assert found.log_evidence[row, column] == found.log_evidence.max()
    assert not found.standard_error.any()


def test_the_evidence_of_several_outputs_is_that_of_draws_from_the_prior():
    kernel, y = problem(4, 6)
    y = np.hstack([2 * y, y[::-1]])
    found = evidence_grid(kernel, y, (5, math.inf), (0, 2), noise=0.3)
    gaussian: Any = scipy.stats.multivariate_normal
    level = kernel + 0.3 * np.eye(4)
    known = sum(gaussian.logpdf(column, cov=level) for column in y.T)
    np.testing.assert_allclose(found.log_evidence[[0, 1, 1], [0, 0, 1]], known, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error[[0, 1, 1], [0, 0, 1]], 0, atol=1e-8)
    rng, count = np.random.default_rng(0), 200_000
    first = rng.normal(size=(count, 2, 5)) / np.sqrt(5)
    scales = first @ (rng.normal(size=(count, 5, 5)) / np.sqrt(5))
    scales = scales @ scales.swapaxes(1, 2)
    levels, frames = np.linalg.eigh(kernel)
    turned = frames.T @ y  # rows of independent pairs, given the outputs' covariance
    logs = np.zeros(count)
    for level, pair in zip(levels, turned, strict=True):
        covariance = level * scales + 0.3 * np.eye(2)
        fit = pair @ np.linalg.solve(covariance, pair[:, None])[..., 0].T
        logs -= 0.5 * (fit + np.linalg.slogdet(covariance)[1]) + np.log(2 * np.pi)
    drawn = np.exp(logs - logs.max())
    wanted = logs.max() + np.log(drawn.mean())
    error = np.hypot(drawn.std() / drawn.mean() / np.sqrt(count), found.standard_error[0, 1])
    assert abs(found.log_evidence[0, 1] - wanted) < 4 * error < 0.1
    assert found.standard_error[0, 1] > 0


@pytest.mark.parametrize(
    "words, change",
    [
        ("give whole numbers, at least 1, or infinity", {"widths": (3, 0)}),
        ("give whole numbers, at least 1, or infinity", {"widths": (2.5,)}),
        ("give whole numbers, at least 1, or infinity", {"widths": (math.nan,)}),
        ("kernel has shape", {"kernel": np.ones((3, 2))}),
        ("not finite and symmetric", {"kernel": np.full((3, 3), np.nan)}),
        ("targets have shape", {"targets": np.ones((2, 1))}),
        ("targets are not finite", {"targets": np.full((3, 1), np.nan)}),
        ("give one, or use outputs_mixture", {"targets": np.ones((3, 2))}),
        ("give a variance, at least 0", {"noise": -1.0}),
        ("is singular and noise is 0: give noise above 0", {"kernel": np.ones((3, 3))}),
        ("targets are all 0 and noise is 0", {"targets": np.zeros((3, 1))}),
    ],
)
def test_refusals(words, change):
    kernel, y = problem()
    asked = {"kernel": kernel, "targets": y, "widths": (4,), "noise": 0.0} | change
    with pytest.raises(ValueError, match=words):
        scale_mixture(**asked)


def test_refusals_of_predictions_and_grids():
    kernel, y = problem()
    found = scale_mixture(kernel, y, (4,))
    with pytest.raises(ValueError, match="cross has shape"):
        found.predict(np.ones((2, 4)))
    with pytest.raises(ValueError, match="prior has shape"):
        found.predict(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="depths of 0 or more"):
        evidence_grid(kernel, y, (4,), (-1,))
    with pytest.raises(
        ValueError, match="At width 1 and depth 2: A hidden layer has 1 units for 2"
    ):
        evidence_grid(kernel, np.hstack([y, y]), (1,), (2,))
