"""Deep linear networks with several outputs, convolutions or gates, against drawn weights."""

import math

import numpy as np
import pytest

from widthwise.finite.deep_linear import (
    convolution_mixture,
    fourth_moments,
    gated_mixture,
    outputs_mixture,
    scale_mixture,
)
from widthwise.finite.deep_linear.chain import WishartChain
from widthwise.finite.deep_linear.draws import posterior_draws
from widthwise.kernels import position_kernels
from widthwise.network import Conv
from widthwise.scaling import NTK

NOISE, ROWS, INPUTS = 0.3, 3, 5
RNG = np.random.default_rng(1)
X, Y, Y2, NEW = (
    RNG.normal(size=size)
    for size in ((ROWS, INPUTS), (ROWS, 1), (ROWS, 2), (1, INPUTS))
)  # fmt: skip
KERNEL = X @ X.T / INPUTS
GATES = np.random.default_rng(2).normal(size=(ROWS + 1, 2))


def by_weights(outputs: np.ndarray, targets: np.ndarray):
    """Log evidence and its error, and weights of draws of the training rows' outputs."""
    flat = outputs.reshape(len(outputs), -1) - targets.ravel()
    logs = -0.5 * np.sum(flat**2 / NOISE + math.log(2 * math.pi * NOISE), axis=1)
    weights = np.exp(logs - logs.max())
    error = weights.std() / weights.mean() / math.sqrt(len(weights))
    return logs.max() + math.log(weights.mean()), error, weights / weights.sum()


def check_evidence(found, targets, outputs, sigmas: float = 4):
    evidence, error, _ = by_weights(outputs, targets)
    error = math.hypot(error, found.draws.standard_error)
    assert error < 0.03
    assert abs(found.log_evidence - evidence) < sigmas * error


def check_mean(value, targets, outputs, new):
    """The mean at one new row; weights' own error alone, which is the larger."""
    _, _, weights = by_weights(outputs, targets)
    mean = np.tensordot(weights, new, 1)
    apart = weights[:, None] * (new.reshape(len(new), -1) - mean.ravel())
    assert (np.abs(value.ravel() - mean.ravel()) < 4 * np.sqrt(np.sum(apart**2, axis=0))).all()


def dense(widths, outputs: int, count: int, rng) -> np.ndarray:
    """Outputs (count, rows and a new one, outputs) of random networks."""
    signal = np.broadcast_to(np.vstack([X, NEW]).T, (count, INPUTS, ROWS + 1))
    for before, after in zip((INPUTS, *widths), (*widths, outputs), strict=True):
        signal = rng.normal(size=(count, after, before)) @ signal / math.sqrt(before)
    return signal.swapaxes(1, 2)


def gated(widths, count: int, rng) -> np.ndarray:
    """Outputs (count, rows and a new one) of random gated networks."""
    signal = np.broadcast_to(np.vstack([X, NEW]), (count, ROWS + 1, INPUTS))
    for before, after in zip((INPUTS, *widths), (*widths, 1), strict=True):
        weights = rng.normal(size=(count, 2, after, before)) / math.sqrt(2 * before)
        each = [GATES[:, m, None] * (signal @ weights[:, m].swapaxes(1, 2)) for m in range(2)]
        signal = each[0] + each[1]
    return signal[..., 0]


def convolved(x, channels, padding: str, count: int, rng) -> np.ndarray:
    """Outputs (count, rows) of random networks with filters of three taps and a dense readout."""
    signal = np.broadcast_to(x, (count, *x.shape))  # rows, channels, positions
    mode = {"CIRCULAR": "wrap", "SAME": "constant"}[padding]
    for before, after in zip((x.shape[1], *channels), channels, strict=False):
        weights = rng.normal(size=(count, 3, 1, after, before)) / math.sqrt(3 * before)
        around = np.pad(signal, [(0, 0)] * 3 + [(1, 1)], mode=mode)  # type: ignore[call-overload]
        size = x.shape[2]
        signal = sum(weights[:, m] @ around[..., m : m + size] for m in range(3))
    readout = rng.normal(size=(count, 1, channels[-1], x.shape[2]))
    return np.sum(readout * signal, axis=(2, 3)) / math.sqrt(channels[-1] * x.shape[2])


def test_several_outputs_are_those_of_drawn_weights(rng):
    outputs = dense((3, 5), 2, 60_000, rng)
    found = outputs_mixture(KERNEL, Y2, (3, 5), NOISE)
    check_evidence(found, Y2, outputs[:, :ROWS])
    cross, variance = NEW @ X.T / INPUTS, np.sum(NEW**2, axis=1) / INPUTS
    predicted = found.predict(cross, variance)
    check_mean(predicted.value, Y2, outputs[:, :ROWS], outputs[:, ROWS])
    assert predicted.covariance is not None
    _, _, weights = by_weights(outputs[:, :ROWS], Y2)
    apart = outputs[:, ROWS] - predicted.value
    square = np.einsum("si,sj->sij", apart, apart)
    error = np.sqrt(np.tensordot(weights**2, (square - predicted.covariance[0]) ** 2, 1))
    assert (np.abs(np.tensordot(weights, square, 1) - predicted.covariance[0]) < 5 * error).all()


@pytest.mark.parametrize("widths", [(2, 4), (1,), (4, 1, 3)])
def test_one_output_of_several_is_the_scale_mixture(widths):
    found = outputs_mixture(KERNEL, Y, widths, NOISE)
    exact = scale_mixture(KERNEL, Y, widths, NOISE)
    assert abs(found.log_evidence - exact.log_evidence) < 4 * found.draws.standard_error
    np.testing.assert_allclose(found.mean().item(), exact.moment(1), rtol=0.1)
    cross = NEW @ X.T / INPUTS
    np.testing.assert_allclose(found.predict(cross).value, exact.predict(cross).value, atol=0.02)


def test_a_layer_narrower_than_the_outputs(rng):
    found = outputs_mixture(KERNEL, Y2, (1, 3), NOISE)
    check_evidence(found, Y2, dense((1, 3), 2, 60_000, rng)[:, :ROWS])
    with pytest.raises(ValueError, match="1 units for 2 outputs and noise is 0"):
        outputs_mixture(KERNEL, Y2, (1, 3))


def test_without_noise_and_without_layers():
    cross, variance = NEW @ X.T / INPUTS, np.sum(NEW**2, axis=1) / INPUTS
    found, plain = (outputs_mixture(KERNEL, Y2, widths) for widths in ((40,), (math.inf,)))
    assert plain.draws.standard_error < 1e-8
    covered = np.kron(np.eye(2), KERNEL)
    fit = Y2.T.ravel() @ np.linalg.solve(covered, Y2.T.ravel())
    wanted = -0.5 * (fit + np.linalg.slogdet(covered)[1] + 6 * math.log(2 * math.pi))
    np.testing.assert_allclose(plain.log_evidence, wanted, rtol=1e-10)
    np.testing.assert_allclose(found.predict(cross).value, plain.predict(cross).value, rtol=1e-8)
    # of the covariance only the outputs' own is moved
    wider, alone = (one.predict(cross, variance).covariance for one in (found, plain))
    assert wider is not None and alone is not None
    np.testing.assert_allclose(wider, alone[0, 0, 0] * found.mean()[None], rtol=1e-6)


def test_many_draws_count_where_data_are_strong(rng):
    """Draws of the prior would leave none: data are as many as units, and far from it."""
    x = rng.normal(size=(60, 80))
    kernel = x @ x.T / 80
    y = np.linalg.cholesky(kernel) @ rng.normal(size=(60, 2)) @ np.array([[2.0, 1.0], [0.0, 0.7]])
    found = outputs_mixture(kernel, y, (100, 50, 20), 0.1)
    assert found.draws.effective > 1000
    found = outputs_mixture(kernel, y[:, :1], (30, 30), 0.1)
    exact = scale_mixture(kernel, y[:, :1], (30, 30), 0.1)
    assert found.draws.effective > 2000
    assert abs(found.log_evidence - exact.log_evidence) < 4 * found.draws.standard_error
    np.testing.assert_allclose(found.mean().item(), exact.moment(1), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("widths, outputs", [((100,), 10), ((100,) * 5, 5)])
def test_many_draws_count_of_many_outputs(widths, outputs, rng):
    x = rng.normal(size=(160, 200))
    kernel = x @ x.T / 200
    mixing = 1.3 * np.eye(outputs) + 0.2 * rng.normal(size=(outputs, outputs))
    y = np.linalg.cholesky(kernel) @ rng.normal(size=(160, outputs)) @ mixing
    y += 0.3 * rng.normal(size=y.shape)
    found = outputs_mixture(kernel, y, widths, 0.1)
    again = outputs_mixture(kernel, y, widths, 0.1, seed=1)
    assert found.draws.effective > 400
    error = math.hypot(found.draws.standard_error, again.draws.standard_error)
    assert abs(found.log_evidence - again.log_evidence) < 4 * error


def test_seeds_decide():
    first, again, other = (
        outputs_mixture(KERNEL, Y2, (4,), NOISE, samples=500, seed=seed).log_evidence
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_draws_that_do_not_count_are_refused():
    chain = WishartChain(np.eye(1), (50,))
    with pytest.raises(ValueError, match="draws only"):
        posterior_draws(chain, lambda a: -a[:, 0, 0], 50, 0)


def test_fourth_moments(rng):
    found = fourth_moments((3, 5))
    np.testing.assert_allclose(found, (7 / 3, 17 / 15, 0.6), rtol=1e-14)
    chain = WishartChain(np.eye(2), (5, 3))
    a = chain.draw(100_000, None, rng).matrices[-1]
    drawn = np.stack([a[:, 0, 0] ** 2, a[:, 0, 0] * a[:, 1, 1], a[:, 0, 1] ** 2])
    error = drawn.std(axis=1) / math.sqrt(drawn.shape[1])
    assert (np.abs(drawn.mean(axis=1) - found) < 4 * error).all()


@pytest.mark.parametrize("padding", ["CIRCULAR", "SAME"])
@pytest.mark.parametrize("channels", [(3, 5), (6,)])
def test_convolutions_are_those_of_drawn_weights(padding, channels, rng):
    x = rng.normal(size=(ROWS + 1, 2, 4))
    local = np.einsum("pci,qcj->ijpq", x, x) / 2
    outputs = convolved(x, channels, padding, 30_000, rng)
    found = convolution_mixture(
        local[..., :ROWS, :ROWS],
        Y,
        channels,
        grid=(4,),
        filter_shape=(3,),
        noise=NOISE,
        padding=padding,
    )
    check_evidence(found, Y, outputs[:, :ROWS])
    predicted = found.predict(local[..., ROWS:, :ROWS], local[..., ROWS:, ROWS:])
    check_mean(predicted.value, Y, outputs[:, :ROWS], outputs[:, ROWS:])
    _, _, weights = by_weights(outputs[:, :ROWS], Y)
    square = (outputs[:, ROWS] - predicted.value.item()) ** 2
    assert predicted.covariance is not None
    np.testing.assert_allclose(predicted.covariance.item(), weights @ square, rtol=0.1)


def test_wide_convolutions_have_the_kernel_of_their_networks(rng):
    """Filters of two axes, in the order that `position_kernels` has; and mean of fourth powers."""
    x = rng.normal(size=(2, 3, 2, 1))
    flat = x[..., 0].reshape(2, 6)
    local = np.einsum("pi,qj->ijpq", flat, flat)
    found = convolution_mixture(
        local,
        np.ones((2, 1)),
        (10**7,),
        grid=(3, 2),
        filter_shape=(3, 1),
        padding="CIRCULAR",
        noise=1e9,
        samples=200,
    )
    mixed = np.tensordot(found.mean(), local, 2)
    hidden = position_kernels(
        Conv((3, 1), padding="CIRCULAR", weight_variance=1.0), x, scaling=NTK()
    ).nngp.reshape(2, 2, 6, 6)
    np.testing.assert_allclose(mixed, np.einsum("pqii->pq", hidden) / 6, rtol=1e-2)


@pytest.mark.parametrize("widths", [(3,), (3, 4)])
def test_gates_are_those_of_drawn_weights(widths, rng):
    outputs = gated(widths, 60_000, rng)
    found = gated_mixture(KERNEL, GATES[:ROWS], Y, widths, NOISE)
    check_evidence(found, Y, outputs[:, :ROWS])
    cross, prior = NEW @ X.T / INPUTS, NEW @ NEW.T / INPUTS
    predicted = found.predict(cross, GATES[ROWS:], prior)
    check_mean(predicted.value, Y, outputs[:, :ROWS], outputs[:, ROWS:])
    _, _, weights = by_weights(outputs[:, :ROWS], Y)
    square = (outputs[:, ROWS] - predicted.value.item()) ** 2
    assert predicted.covariance is not None
    np.testing.assert_allclose(predicted.covariance.item(), weights @ square, rtol=0.1)


def test_one_gate_and_one_position_are_the_scale_mixture():
    exact = scale_mixture(KERNEL, Y, (4, 6), NOISE).log_evidence
    found = gated_mixture(KERNEL, np.ones((ROWS, 1)), Y, (4, 6), NOISE)
    assert abs(found.log_evidence - exact) < 4 * found.draws.standard_error
    other = convolution_mixture(
        KERNEL[None, None], Y, (4, 6), grid=(1,), filter_shape=(1,), noise=NOISE
    )
    assert abs(other.log_evidence - exact) < 4 * other.draws.standard_error


def local_kernels(size: int = 4) -> np.ndarray:
    return np.ones((size, size, ROWS, ROWS))


@pytest.mark.parametrize(
    "words, change",
    [
        ("local has shape", {"local": local_kernels(3)}),
        ("local has shape", {"local": np.ones((4, 4, 3))}),
        ("local is not finite", {"local": local_kernels() * np.nan}),
        ("targets have shape", {"targets": np.ones((2, 1))}),
        ("targets have 2 columns: give one", {"targets": np.ones((ROWS, 2))}),
        ("one a hidden layer, at least one", {"channels": ()}),
        ("at least 1, or infinity", {"channels": (0,)}),
        ("one a hidden layer", {"channels": (math.inf,)}),
        ("of the same axes", {"filter_shape": (3, 3)}),
        ("give odd extents", {"filter_shape": (2,), "padding": "SAME"}),
        ("give 'SAME' or 'CIRCULAR'", {"padding": "same"}),
        ("give noise above 0", {"noise": 0.0}),
    ],
)
def test_refusals_of_convolutions(words, change):
    asked = {"local": local_kernels(), "targets": Y, "channels": (4,), "grid": (4,)}
    asked |= {"filter_shape": (3,), "noise": 1.0} | change
    with pytest.raises(ValueError, match=words):
        convolution_mixture(**asked)


def test_refusals_of_gates():
    with pytest.raises(ValueError, match="gates has shape"):
        gated_mixture(KERNEL, np.ones((2, 2)), Y, (4,), NOISE)
    with pytest.raises(ValueError, match=r"matrices of 3\^6 rows"):
        gated_mixture(KERNEL, np.ones((ROWS, 3)), Y, (4,) * 6, NOISE)
    found = gated_mixture(KERNEL, GATES[:ROWS], Y, (4,), NOISE, samples=500)
    with pytest.raises(ValueError, match="gates has shape"):
        found.predict(np.ones((2, ROWS)), np.ones((1, 2)))
