"""Predictions of kernel matrices that are given: empirical ones, sums, another library's."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from widthwise.learner import GradientDescent, GradientFlow
from widthwise.limits.descent import descent_of, frozen_refusal, largest_stable_step
from widthwise.limits.nngp import GIVEN
from widthwise.run import Prediction
from widthwise.solve import cholesky
from widthwise.solve.given import given_cross, given_noise, given_problem, given_shape


class Descended(NamedTuple):
    """Outputs at training and new rows at the logged times, the last of which is the learner's."""

    times: Float[np.ndarray, " t"]
    train: Float[np.ndarray, "t n k"]
    new: Float[np.ndarray, "t m k"]


def descend(
    kernel: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    learner: GradientDescent | GradientFlow,
    *,
    cross: Num[Array | np.ndarray, "..."] | None = None,
    start: Num[Array | np.ndarray, "..."] | None = None,
    new_start: Num[Array | np.ndarray, "..."] | None = None,
    order: int = 0,
    logs: int = 16,
) -> Descended:
    """What descent makes of a function linear in its parameters that has this tangent kernel.

    >>> found = descend(np.eye(3), np.ones((3, 1)), GradientFlow(time=3.0), cross=np.eye(3)[:1])
    >>> found.train[-1].round(2).tolist(), found.new[-1].round(2).tolist()
    ([[0.63], [0.63], [0.63]], [[0.63]])

    Args:
        kernel: tangent kernel (n, n) of the training rows, as `kernel_matrix` or `empirical_kernel`
            gives it.
        targets: (n, k), a column an output; for cross-entropy one-hot.
        learner: its step size, if None, is `safety` times the largest stable one.
        cross: tangent kernel (m, n) of new rows against the training rows.
        start, new_start: the function's values (n, k) and (m, k) before training; zeros unless
            given, which for squared error makes the outputs means over initialisations.
        order: seeds the mini-batches.
        logs: how many times are logged.

    Raises ValueError for shapes that do not fit, a kernel that is not symmetric, and settings under
    which the kernel does not stay; `Diverged` for a step size past what is stable.

    Source: jacot2018, Theorem 2; lee2019, eqs. (8) to (11).
    """
    if isinstance(learner, GradientDescent) and (sentence := frozen_refusal(learner)) is not None:
        raise ValueError(sentence)
    kernel, targets = given_problem(kernel, targets)
    outputs = targets.shape[1]
    cross = np.empty((0, len(kernel))) if cross is None else given_cross(cross, len(kernel))
    start = _zeros_or("start", start, (len(kernel), outputs))
    new_start = _zeros_or("new_start", new_start, (len(cross), outputs))
    if isinstance(learner, GradientDescent) and learner.lr is None:
        largest = largest_stable_step(kernel, learner)
        learner = dataclasses.replace(learner, lr=learner.safety * largest)
    descent = descent_of(kernel, learner, order, logs)
    moved = descent.coefficients(start, targets)
    times = np.array(descent.times)
    return Descended(times, start - kernel @ moved, new_start - cross @ moved)


def condition(
    kernel: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    noise: float,
    *,
    cross: Num[Array | np.ndarray, "..."],
    prior: Num[Array | np.ndarray, "..."] | None = None,
) -> Prediction:
    """The Gaussian process with these covariances, conditioned on targets.

    >>> condition(np.eye(3), np.ones((3, 1)), 1.0, cross=np.eye(3)[:1]).value.round(6).tolist()
    [[0.5]]

    Args:
        kernel: covariance (n, n) of the training rows.
        targets: (n, k), a column an output.
        noise: variance of the noise on the targets, at least 0.
        cross: covariance (m, n) of new rows and the training rows.
        prior: covariance (m, m) of the new rows; without it, only the mean is found.

    `given` of the result tells of a jitter, if the kernel needed one. Raises ValueError for shapes
    that do not fit and for a kernel that is not symmetric or not positive definite.

    Source: rasmussen2006, eqs. (2.25) and (2.26).
    """
    noise = given_noise(noise)
    kernel, targets = given_problem(kernel, targets)
    cross = given_cross(cross, len(kernel))
    factor = cholesky(kernel + noise * np.eye(len(kernel)))
    jitter = f", and a jitter of {factor.jitter:g} of the diagonal" if factor.jitter else ""
    value, covariance = cross @ factor.solve(targets), None
    if prior is not None:
        half = factor.half(cross.T)
        prior = given_shape("prior", prior, (len(cross), len(cross)))
        covariance = prior - half.T @ half
    return Prediction(value, covariance, GIVEN + jitter)


def _zeros_or(name: str, values, shape: tuple[int, int]) -> np.ndarray:
    return np.zeros(shape) if values is None else given_shape(name, values, shape)
