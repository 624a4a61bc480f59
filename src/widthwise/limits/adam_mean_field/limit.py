"""The mean-field limit under Adam as a limit: found in the table, trained, saved, asked."""

import dataclasses
import functools
import time
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise import settings
from widthwise.learner import AbstractLearner, Adam, Entrywise, SignDescent
from widthwise.limits.adam_mean_field.constants import Layer, layer_of, unfaithful
from widthwise.limits.adam_mean_field.particles import (
    Particles,
    Rule,
    advance,
    drawn,
    feature_kernel,
    memory_at_rest,
    outputs,
    principal_axes,
)
from widthwise.limits.base import (
    FORGOTTEN,
    UNKEPT,
    AbstractLimit,
    AbstractPrepared,
    EmptyCell,
    Start,
    Trained,
    Work,
    random_constant,
)
from widthwise.limits.halves import HALVES, chaos_told, error_told, growth_told, largest_gap
from widthwise.memory import check_free
from widthwise.network.layer import AbstractLayer
from widthwise.network.stack import NoStack, stack_of
from widthwise.problem import Problem, batches, check_growth, logged_steps, loss_value
from widthwise.run import AbstractState, Prediction, Trajectory, check_columns
from widthwise.scaling import AbstractScaling

SECONDS = 60.0  # between two checkpoints
STRETCHES = 64  # compiled calls that a training takes, at least: progress is told between them
COORDINATES = 21_201  # that Sobol's points have


class AdamMeanField(AbstractLimit):
    """What a muP network with one hidden layer becomes under Adam: features that learn.

    >>> net = Dense() >> Relu() >> Readout()
    >>> AdamMeanField(net, MuP(), Adam(lr=0.01, steps=100)).regime
    'rich'

    Neurons become independent particles (u, b, v), f(x) = E[v phi(u x + b)] + c, each with moments
    of its own, and chi = dL/df of a step is the same for all of them:
    u -= lr Q(v phi'(h) chi x), v -= lr Q(phi(h) chi). The expectation is taken over quasi-random
    particles, drawn in pairs (u, b, v), (u, b, -v), so that the function starts at zero exactly; in
    float64. Its error is told in the notes of the run.

    Args:
        network: `Dense() >> phi() >> Readout()`, with any elementwise nonlinearity or none.
        scaling: one under which features learn and Adam's eps means the same at every width.
        learner: Adam or sign descent; mini-batches, schedules, weight decay and both losses too.
        samples: number of particles, a power of two, in two independent halves whose mean is
            the answer.
    """

    source: ClassVar[str] = "yang2023adaptive, Theorem 2.5.2"
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (Adam, SignDescent)
    follows_start: ClassVar[bool] = False
    network: AbstractLayer
    scaling: AbstractScaling
    learner: Entrywise
    samples: int = 32768

    def __check_init__(self):
        settings.whole(self, "samples", low=256)
        if self.samples & (self.samples - 1):
            raise ValueError(
                f"samples is {self.samples}, and Sobol's points are even in powers of two only: "
                f"give {1 << (self.samples.bit_length() - 1)}."
            )

    def refusal(self) -> str | None:
        name = type(self).__name__
        try:
            depth = len(stack_of(self.network).between)
        except NoStack as error:
            return f"{name} is known for plain stacks of layers: {error}"
        if depth > 1:
            return (
                f"{name} is known for one hidden layer and the network has {depth}: use one, or "
                "limit=Extrapolated(network, scaling, learner), which extrapolates finite widths."
            )
        if (sentence := random_constant(self.network, name)) is not None:
            return sentence
        if unfaithful(self.network, self.scaling):
            return (
                f"Under {self.scaling!r} the gradients that Adam sees are no longer of the order "
                "of its eps as the width grows: use MuP(), or other d in ABC."
            )
        return None

    def check(self, problem: Problem) -> None:
        """Raises EmptyCell for more inputs than there are Sobol points for, MemoryError, telling
        the estimate, for particles that find no room."""
        if (sentence := self.refusal()) is not None:
            raise EmptyCell(sentence)
        (rows, d), k = problem.x_train.shape, problem.y_train.shape[1]
        if d + k + 1 > COORDINATES:
            raise EmptyCell(
                f"{type(self).__name__} takes {COORDINATES - 1:,} inputs and outputs at most and "
                f"{d + k:,} came: use fewer columns."
            )
        batch = min(self.learner.batch_size or rows, rows)
        half = 8 * (self.samples // HALVES)
        # particles, moments and gradients twice over, and what derivatives keep of the rows
        need = half * (10 * (d + k + 1) + 5 * batch) + HALVES * half * (d + k + 1)
        remedy = (
            "take a smaller batch_size, fewer columns, or limit=AdamMeanField(..., samples=...)"
        )
        check_free(need, f"{self.samples:,} particles", remedy)

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Finds the constants of the layers."""
        self.check(problem)
        layer = layer_of(self.network, self.scaling, problem.x_train.shape[1])
        return _Prepared(self, layer, problem, order, logs)


class _Half(NamedTuple):
    """One half so far: a checkpoint, and what is left of it at the end."""

    step: int
    particles: Particles
    moments: Any
    log: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]  # of train, test, kernel


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: AdamMeanField
    layer: Layer
    problem: Problem
    order: int
    logs: int

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Every initial function leads to the same limit: `start` is not read.

        Raises `Diverged` where the loss leaves the finite numbers.
        """
        halves, steps = self._resumed(work), self.limit.learner.steps
        written = time.monotonic()
        while len(halves) < HALVES or halves[-1].step < steps:
            if not halves or halves[-1].step == steps:
                halves.append(self._begun(len(halves)))
            before = halves[-1].step
            halves[-1] = self._further(halves[-1])
            work.advance((halves[-1].step - before) / steps / HALVES)
            if time.monotonic() - written > SECONDS:
                work.keep(self._name(), halves)
                written = time.monotonic()
        # so that a training interrupted later need not repeat this one
        work.keep(self._name(), halves)
        return self._trained(halves)

    @functools.cached_property
    def _times(self) -> tuple[int, ...]:
        return logged_steps(self.limit.learner.steps, self.logs)

    @functools.cached_property
    def _batches(self) -> np.ndarray | None:
        learner = self.limit.learner
        return batches(len(self.problem.x_train), learner.steps, learner.batch_size, self.order)

    @property
    def _rule(self) -> Rule:
        """One compilation for any step size and number of steps."""
        return Rule(self.layer, dataclasses.replace(self.limit.learner, lr=None, steps=1))

    def _begun(self, number: int) -> _Half:
        x, k = self.problem.x_train, self.problem.y_train.shape[1]
        size = self.limit.samples // HALVES
        particles = drawn(self.layer, principal_axes(x), k, size, number)
        return self._logged(_Half(0, particles, memory_at_rest(self._rule, particles), ()))

    def _further(self, half: _Half) -> _Half:
        """A stretch of steps, to the next logged one at most."""
        learner = self.limit.learner
        assert learner.lr is not None
        log = next(step for step in self._times if step > half.step)
        now = min(log, half.step + max(1, learner.steps // STRETCHES))
        particles, moments = advance(
            self._rule, learner.lr, (half.step, now), (half.particles, half.moments),
            (self.problem.x_train, self.problem.y_train), self._batches,
            learner.schedule.factors(learner.steps),
        )  # fmt: skip
        moved = _Half(now, particles, moments, half.log)
        return self._logged(moved) if now == log else moved

    def _logged(self, half: _Half) -> _Half:
        problem, layer, loss = self.problem, self.layer, self.limit.learner.loss
        train, test = (outputs(layer, half.particles, x) for x in (problem.x_train, problem.x_test))
        lost = loss_value(train, problem.y_train, loss)
        first = loss_value(half.log[0][0], problem.y_train, loss) if half.log else lost
        check_growth("The mean-field limit", half.step, float(lost), float(first))
        kernel = feature_kernel(layer, half.particles, problem.probes)
        return half._replace(log=(*half.log, (train, test, kernel)))

    def _trained(self, halves: list[_Half]) -> Trained:
        parts = [[np.stack(x) for x in zip(*half.log, strict=True)] for half in halves]
        train, test, kernel = (np.mean(x, axis=0) for x in zip(*parts, strict=True))
        problem, loss = self.problem, self.limit.learner.loss
        lost = loss_value(train, problem.y_train, loss)
        there = loss_value(test, problem.y_test, loss)
        kernels = {} if self.layer.name is None else {self.layer.name: kernel}
        trajectory = Trajectory(np.array(self._times, float), lost, there, test, kernels)
        state = AdamMeanFieldState(self.layer, tuple(half.particles for half in halves))
        gap = largest_gap(*(np.concatenate(half[:2], axis=1) for half in parts))
        particles = f"{self.limit.samples // HALVES:,} particles"
        notes = (
            error_told(f"Quasi-Monte Carlo: two halves of {particles}", gap),
            *chaos_told(gap, problem.y_train, "lower lr, or raise eps or samples"),
            *growth_told(lost),
        )
        return Trained(state, trajectory, notes)

    def _name(self) -> str:
        return repr((self.limit, self.order, self._times))

    def _resumed(self, work: Work) -> list[_Half]:
        halves = work.kept(self._name()) or []
        work.advance(sum(half.step for half in halves) / self.limit.learner.steps / HALVES)
        return halves


@dataclasses.dataclass(frozen=True)
class AdamMeanFieldState(AbstractState):
    """The trained particles of every half; their functions' mean is the answer."""

    layer: Layer
    halves: tuple[Particles, ...]

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        check_columns(x, self.halves[0].weight.shape[1])
        value = np.mean([outputs(self.layer, half, x) for half in self.halves], axis=0)
        zero = np.zeros((len(x), len(x))) if covariance else None
        return Prediction(value, zero, FORGOTTEN)
