"""Descent in function space against the same descent written out in parameter space."""

import math

import numpy as np
import pytest
import scipy.integrate

from widthwise.learner import GradientDescent, GradientFlow
from widthwise.limits.descent import Spectral, Stepped, descent_of, largest_stable_step
from widthwise.problem import Diverged, batches
from widthwise.solve import Spectrum, flow_fraction, steps_fraction

N, P, K = 9, 30, 3
RNG = np.random.default_rng(0)
JACOBIAN = RNG.normal(size=(N, P)) / math.sqrt(P)  # of a model linear in its parameters
KERNEL = JACOBIAN @ JACOBIAN.T
START, TARGETS = RNG.normal(size=(N, K)), np.eye(K)[RNG.integers(0, K, N)]


def slope(out, targets, loss):
    if loss == "mse":
        return out - targets
    chances = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
    return chances - targets


def gradient(theta, rows, learner):
    out = START[rows] + JACOBIAN[rows] @ theta
    gradient = JACOBIAN[rows].T @ slope(out, TARGETS[rows], learner.loss) / len(rows)
    return gradient + learner.ridge / N * theta


def by_steps(learner, order):
    """Outputs at the training rows after every step, by steps of the parameters."""
    theta, velocity = np.zeros((P, K)), np.zeros((P, K))
    chosen = batches(N, learner.steps, learner.batch_size, order)
    outs = [START]
    for step in range(learner.steps):
        rows = np.arange(N) if chosen is None else chosen[step]
        velocity = learner.momentum * velocity + gradient(theta, rows, learner)
        theta = theta - learner.lr * velocity
        outs.append(START + JACOBIAN @ theta)
    return np.array(outs)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_steps(loss, momentum, ridge, batch_size):
    learner = GradientDescent(
        lr=2.0, steps=25, batch_size=batch_size, momentum=momentum, ridge=ridge, loss=loss
    )
    descent = descent_of(KERNEL, learner, order=3, logs=6)
    found = START - KERNEL @ descent.coefficients(START, TARGETS)
    expected = by_steps(learner, order=3)[[int(t) for t in descent.times]]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    if loss == "mse":
        response = descent.response()
        assert response is not None
        reached = START - KERNEL @ response @ (START - TARGETS)
        np.testing.assert_allclose(reached, expected[-1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("friction", [None, 0.5])
def test_flows(loss, friction):
    learner = GradientFlow(time=30.0, friction=friction, ridge=0.3, loss=loss)
    descent = descent_of(KERNEL, learner, order=0, logs=5)
    found = START - KERNEL @ descent.coefficients(START, TARGETS)
    rows = np.arange(N)

    def field(_, state):
        theta, velocity = state.reshape(2, P, K)
        force = -gradient(theta, rows, learner)
        moved = (force, 0 * force) if friction is None else (velocity, force - friction * velocity)
        return np.stack(moved).ravel()

    flowed = scipy.integrate.solve_ivp(
        field, (0, 30.0), np.zeros(2 * P * K), t_eval=descent.times, rtol=1e-10, atol=1e-12
    )
    expected = [START + JACOBIAN @ state.reshape(2, P, K)[0] for state in flowed.y.T]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_to_the_end_of_a_flow_targets_are_met():
    descent = descent_of(KERNEL, GradientFlow(), order=0, logs=6)
    out = START - KERNEL @ descent.coefficients(START, TARGETS)[-1]
    np.testing.assert_allclose(out, TARGETS, atol=1e-9)
    assert descent.times[-1] == math.inf


def test_both_paths_agree():
    learner = GradientDescent(lr=1.5, steps=40, momentum=0.5, ridge=0.1)
    closed, stepped = Spectral(KERNEL, learner, 5), Stepped(KERNEL, learner, 0, 5)
    np.testing.assert_allclose(
        closed.coefficients(START, TARGETS), stepped.coefficients(START, TARGETS), rtol=1e-8
    )
    one, two = closed.response(), stepped.response()
    assert one is not None and two is not None
    np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [None, 8])
def test_just_below_and_above_the_largest_stable_step(momentum, batch_size):
    """Below it the residual shrinks, above it descent is refused or stops with a sentence."""
    largest = largest_stable_step(KERNEL, GradientDescent(momentum=momentum))
    below = GradientDescent(lr=0.99 * largest, steps=3000, momentum=momentum)
    found = descent_of(KERNEL, below, 0, 4).coefficients(START, TARGETS)
    assert np.abs(START - KERNEL @ found[-1] - TARGETS).max() < np.abs(START - TARGETS).max()
    above = GradientDescent(lr=1.5 * largest, steps=3000, momentum=momentum, batch_size=batch_size)
    with pytest.raises(Diverged, match="lower"):
        descent_of(KERNEL, above, 0, 4).coefficients(START, TARGETS)


def test_a_singular_kernel_moves_what_it_can():
    """Two equal rows with different targets: their mean is met."""
    kernel = np.ones((2, 2))
    targets = np.array([[0.0], [1.0]])
    learner = GradientDescent(lr=0.5, steps=200)
    found = kernel @ descent_of(kernel, learner, 0, 3).coefficients(0 * targets, targets)[-1]
    np.testing.assert_allclose(-found, 0.5, atol=1e-12)


def test_fractions_at_their_edges():
    rate = np.array([1e-14, 0.5, 1.0, 1.9])
    np.testing.assert_allclose(steps_fraction(rate, 3)[0], 3e-14, rtol=1e-12)
    np.testing.assert_allclose(
        steps_fraction(rate, 50, 1e-12), steps_fraction(rate, 50), rtol=1e-9, atol=1e-25
    )
    # where both roots of the damped oscillator meet: h = (1 + t) e^-t at friction 2, rate 1
    at = flow_fraction(np.array([1.0 - 1e-12, 1.0, 1.0 + 1e-12]), 1.5, 2.0)
    np.testing.assert_allclose(at, 1 - 2.5 * math.exp(-1.5), rtol=1e-9)
    assert np.isfinite(flow_fraction(rate, 1e6, 0.1)).all()
    values = Spectrum.of(-1e-18 * np.eye(2)).values
    assert (values == 0).all()
