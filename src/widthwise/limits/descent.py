"""Descent in function space: f_t = f_0 - K a_t, and how the coefficients a_t move.

A network that is linear in its parameters moves them by -J^T a, so that descent of any kind is a
dynamic of one coefficient per training row and output: each step adds step size times the loss's
slope in that row's output. Ridge on the distance travelled shrinks a.
"""

import abc
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.learner import GradientDescent, GradientFlow, LossName
from widthwise.problem import Diverged, batches, curvature, diverged, logged_steps
from widthwise.schedule import Constant
from widthwise.solve import (
    Spectrum,
    flow_fraction,
    integrate,
    largest_eigenvalue,
    steps_fraction,
)

Rows = Float[np.ndarray, "n k"]
GROWTH = 100.0  # of the residuals, past which a run is called diverged: 1e4 in squared error


def largest_stable_step(kernel: Float[np.ndarray, "n n"], learner: GradientDescent) -> float:
    """The step size past which descent diverges.

    >>> largest_stable_step(np.eye(4), GradientDescent())
    8.0

    2 (1 + momentum) over the largest curvature, that of the kernel divided by its rows. In
    mini-batches the gradient's noise adds about the largest diagonal entry over the batch size,
    which momentum amplifies.
    """
    rows, momentum = len(kernel), learner.momentum
    bend = curvature(learner.loss)
    sharpness = (bend * largest_eigenvalue(kernel) + learner.ridge) / rows
    if sharpness <= 0:
        raise ValueError("The tangent kernel is zero: no step size trains this network.")
    if learner.batch_size is not None and learner.batch_size < rows:
        noise = bend * float(np.diagonal(kernel).max()) / learner.batch_size
        sharpness += (1 + momentum) / (1 - momentum) * noise
    return 2 * (1 + momentum) / sharpness


def frozen_refusal(learner: GradientDescent) -> str | None:
    """Why no frozen tangent kernel tells what a learner does, in a sentence; None where it does."""
    if learner.weight_decay:
        return (
            "Weight decay shrinks the tangent kernel itself, so TangentKernel has no closed "
            "form with it: use ridge, which pulls towards the initial weights."
        )
    if learner.clip is not None:
        return "TangentKernel knows no norms of single tensors: leave clip out, or use MuP()."
    if learner.projection is not None:
        return (
            "TangentKernel has no projected gradients: leave projection out, or use MuP(), "
            "whose limit with it is the pi-limit."
        )
    return None


class AbstractDescent(abc.ABC):
    """How a learner moves the coefficients of one training set."""

    @property
    @abc.abstractmethod
    def times(self) -> tuple[float, ...]:
        """The logged times, 0 first: steps, or the time of a flow."""

    @abc.abstractmethod
    def coefficients(self, start: Rows, targets: Rows) -> Float[np.ndarray, "t n k"]:
        """a_t at the logged times, from the initial function's values at the training rows."""

    @abc.abstractmethod
    def response(self) -> Float[np.ndarray, "n n"] | None:
        """A with a_T = A (f_0 - y), where a_T is linear in that; None where it is not."""

    def notes(self) -> tuple[str, ...]:
        """What the run should say about how it was solved."""
        return ()


class Spectral(AbstractDescent):
    """Squared error, all rows in every step or a flow: closed form at any time."""

    def __init__(self, kernel, learner: GradientDescent | GradientFlow, logs: int):
        self._rows, self._learner = len(kernel), learner
        self._spectrum = Spectrum.of(kernel)
        self._logs = logs

    @property
    def times(self) -> tuple[float, ...]:
        if isinstance(self._learner, GradientDescent):
            return tuple(float(t) for t in logged_steps(self._learner.steps, self._logs))
        first = 0.1 * self._rows / max(self._spectrum.values[-1], 1e-300)
        last = self._learner.time
        if math.isinf(last):
            return (0.0, *np.geomspace(first, 1e5 * first, self._logs - 2).tolist(), math.inf)
        return flow_times(min(first, last / 2), last, self._logs)

    def _filter(self, time: float) -> Float[np.ndarray, " n"]:
        """1 - h over the eigenvalue, the share of the solution that is reached."""
        learner, values = self._learner, self._spectrum.values
        if math.isinf(time):
            return self._to_the_end()
        level = np.maximum(values + learner.ridge, 1e-15 * max(values[-1], 1e-300))
        rate = level / self._rows
        if isinstance(learner, GradientDescent):
            assert learner.lr is not None
            return steps_fraction(learner.lr * rate, int(time), learner.momentum) / level
        return flow_fraction(rate, time, learner.friction) / level

    def _to_the_end(self) -> Float[np.ndarray, " n"]:
        """The pseudo-inverse: a flow never moves where the kernel has no extent."""
        level = self._spectrum.values + self._learner.ridge
        moved = level > self._floor
        return np.where(moved, 1.0 / np.where(moved, level, 1.0), 0.0)

    @property
    def _floor(self) -> float:
        """Below it an eigenvalue is rounding."""
        return self._rows * float(np.finfo(float).eps) * float(self._spectrum.values[-1])

    def _apply(self, time: float, right: Rows) -> Rows:
        return self._spectrum.apply(self._filter(time), right)

    def coefficients(self, start, targets):
        return np.stack([self._apply(time, start - targets) for time in self.times])

    def response(self):
        return self._apply(self.times[-1], np.eye(self._rows))

    def notes(self):
        count = int(np.sum(self._spectrum.values + self._learner.ridge <= self._floor))
        if count == 0 or not math.isinf(self.times[-1]):
            return ()
        return (f"The tangent kernel is singular in {count} directions, which the flow leaves.",)


class _Moving(NamedTuple):
    """Coefficients and their velocity."""

    a: Rows
    v: Rows


class Stepped(AbstractDescent):
    """Steps one by one: mini-batches, or a loss that is not quadratic."""

    def __init__(self, kernel, learner: GradientDescent, order: int, logs: int):
        self._kernel, self._learner = kernel, learner
        self._times = logged_steps(learner.steps, logs)
        self._batches = batches(len(kernel), learner.steps, learner.batch_size, order)
        self._factors = learner.schedule.factors(learner.steps)

    @property
    def times(self):
        return tuple(float(t) for t in self._times)

    def coefficients(self, start, targets):
        moving = _Moving(np.zeros_like(start), np.zeros_like(start))
        found, limit = [moving.a], GROWTH * max(float(np.abs(start - targets).max()), 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            for before, now in zip(self._times[:-1], self._times[1:], strict=True):
                for step in range(before, now):
                    moving, steepest = self._step(moving, step, start, targets)
                    if not steepest <= limit:
                        raise diverged("Training at infinite width", step)
                found.append(moving.a)
        return np.stack(found)

    def _step(self, moving: _Moving, step: int, start, targets) -> tuple[_Moving, float]:
        learner, count = self._learner, len(self._kernel)
        rows = np.arange(count) if self._batches is None else self._batches[step]
        out = start[rows] - self._kernel[rows] @ moving.a
        slope = loss_slope(out, targets[rows], learner.loss)
        force = -(learner.ridge / count) * moving.a  # a stands for -(theta - theta_0)
        # a row may stand in one batch twice, where two passes meet
        np.add.at(force, rows, slope / len(rows))
        velocity = learner.momentum * moving.v + force
        assert learner.lr is not None
        lr = learner.lr * self._factors[step]
        return _Moving(moving.a + lr * velocity, velocity), float(np.abs(slope).max())

    def response(self):
        if self._learner.loss != "mse":
            return None
        unit = np.eye(len(self._kernel))
        return self.coefficients(unit, np.zeros_like(unit))[-1]


class Flowed(AbstractDescent):
    """A flow on a loss that is not quadratic, integrated."""

    def __init__(self, kernel, learner: GradientFlow, logs: int):
        self._kernel, self._learner, self._logs = kernel, learner, logs

    @property
    def times(self):
        first = 0.1 * len(self._kernel) / max(largest_eigenvalue(self._kernel), 1e-300)
        return flow_times(min(first, self._learner.time / 2), self._learner.time, self._logs)

    def coefficients(self, start, targets):
        learner, count = self._learner, len(self._kernel)

        def force(fixed, a):
            kernel, start, targets = fixed
            slope = loss_slope(start - kernel @ a, targets, learner.loss)
            return (slope - learner.ridge * a) / count

        fixed, rest = (self._kernel, start, targets), np.zeros_like(start)
        if learner.friction is None:
            return integrate(force, rest, self.times, fixed)

        def ball(fixed, moving):
            a, v = moving
            return v, force(fixed, a) - learner.friction * v

        return integrate(ball, (rest, rest), self.times, fixed)[0]

    def response(self):
        return None


def flow_times(first: float, last: float, logs: int) -> tuple[float, ...]:
    """0, and times in equal ratios up to the last."""
    return (0.0, *np.geomspace(first, last, max(logs - 1, 2))[:-1].tolist(), last)


def loss_slope(out, targets, loss: LossName):
    """The derivative of each row's loss in its outputs."""
    if loss == "mse":
        return out - targets
    xp = jnp if isinstance(out, jax.Array) else np
    grown = xp.exp(out - out.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True) * targets.sum(axis=1, keepdims=True) - targets


def descent_of(
    kernel: Float[np.ndarray, "n n"], learner: GradientDescent | GradientFlow, order: int, logs: int
) -> AbstractDescent:
    """The cheapest exact way to follow a learner."""
    if isinstance(learner, GradientFlow):
        if learner.loss == "mse":
            return Spectral(kernel, learner, logs)
        return Flowed(kernel, learner, logs)
    assert learner.lr is not None
    whole = learner.batch_size is None or learner.batch_size >= len(kernel)
    if whole and (largest := largest_stable_step(kernel, learner)) < learner.lr:
        raise Diverged(
            f"lr is {learner.lr:.4g}, past the largest stable step {largest:.4g} at infinite "
            "width: lower it, or leave it out."
        )
    if whole and learner.loss == "mse" and learner.schedule == Constant():
        return Spectral(kernel, learner, logs)
    return Stepped(kernel, learner, order, logs)
