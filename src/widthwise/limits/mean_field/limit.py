"""The mean-field limit as a limit: found in the table, trained, saved, asked for predictions."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from widthwise import settings
from widthwise.learner import AbstractLearner, GradientDescent
from widthwise.limits.base import (
    UNKEPT,
    AbstractLimit,
    AbstractPrepared,
    EmptyCell,
    Start,
    Trained,
    Work,
    random_constant,
)
from widthwise.limits.descent import loss_slope
from widthwise.limits.halves import HALVES, chaos_told, error_told, growth_told, largest_gap
from widthwise.limits.mean_field.matrix import Pace
from widthwise.limits.mean_field.particles import Particles
from widthwise.limits.mean_field.record import WHAT, Log, MeanFieldState, Solution
from widthwise.limits.mean_field.samples import AbstractSamples, Coordinates, Drawn, Full
from widthwise.limits.mean_field.sites import Sites, sites_of
from widthwise.memory import free_memory
from widthwise.network.layer import AbstractLayer
from widthwise.network.stack import NoStack, stack_of
from widthwise.problem import Problem, batches, diverged, logged_steps, loss_value
from widthwise.run import Trajectory
from widthwise.scaling import AbstractScaling

OPERATIONS = 2e13  # what a training may take, minutes on a few cores
EXACT = 1e-13  # tolerance where the solution is exact


class DynamicalMeanField(AbstractLimit):
    """What muP networks become at infinite width: features that learn, in every layer, exactly.

    >>> net = Dense() >> Tanh() >> Dense() >> Tanh() >> Readout()
    >>> DynamicalMeanField(net, MuP(), GradientDescent(lr=0.5, steps=40)).regime
    'rich'

    Neurons become independent samples of one random process. The solver follows it step by step:
    hidden matrices are drawn only along the directions that training visits, so that nothing is
    iterated and nothing of the size (rows * steps)^2 is stored. Linear networks are solved exactly
    and without chance; others with a Monte Carlo error of order samples^-1/2, which the notes of
    the run tell. Memory is at most about 2 * samples^2 bytes a hidden matrix.

    Args:
        network: Dense layers with or without nonlinearities, then a Readout.
        scaling, learner: a rich scaling; momentum, mini-batches, schedules and weight decay too.
        samples: neurons a layer, in two independent halves whose mean is the answer.
        tolerance: share of a row's mean square of features, or of gradients, that its
            expansion in visited directions may leave out; predictions move by about as much.
    """

    source: ClassVar[str] = "bordelon2022, section 2; lu2021, section 2"
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (GradientDescent,)
    follows_start: ClassVar[bool] = False
    network: AbstractLayer
    scaling: AbstractScaling
    learner: GradientDescent
    samples: int = 8192
    tolerance: float = 1e-3

    def __check_init__(self):
        settings.whole(self, "samples", low=256)
        settings.number(self, "tolerance", above=0)
        if self.tolerance >= 1:
            raise ValueError(f"tolerance is {self.tolerance}: a share of a square, 0 to 1.")

    def refusal(self) -> str | None:
        learner, name = self.learner, type(self).__name__
        if learner.projection is not None:
            return f"{name} has no projected gradients: leave projection out, or use the pi-limit."
        if learner.ridge:
            return f"{name} has no pull towards the initial weights: use weight_decay, not ridge."
        if learner.clip is not None:
            return f"{name} has no clipped gradients: leave clip out, or lower lr."
        try:
            stack = stack_of(self.network)
        except NoStack as error:
            return f"{name} is known for plain stacks of layers: {error}"
        if stack.between == (None,):
            return "RichLinear is exact for one hidden linear layer: it stands before mean field."
        return random_constant(self.network, name)

    def check(self, problem: Problem) -> None:
        """Raises EmptyCell, telling the estimate, for what takes too much memory or time."""
        rows, half = len(problem.x_train), self.samples // HALVES
        if len(stack_of(self.network).between) > 1 and rows > half // 8:
            raise EmptyCell(
                f"Mean field of {self.samples:,} samples takes at most {half // 8:,} rows, whose "
                f"directions its hidden matrices hold, and {rows:,} came: use fewer, or "
                "GradientDescent(projection=400), whose limit is the pi-limit."
            )
        memory, operations = self.cost(problem)
        free = free_memory()
        if operations > OPERATIONS or (free is not None and memory > free):
            raise EmptyCell(
                f"Mean field on {len(problem.x_train):,} rows and {self.learner.steps:,} steps "
                f"takes up to {memory / 1e9:.1f} GB and {operations:.0e} operations, and at most "
                f"what is free and {OPERATIONS:.0e} are taken: use fewer rows or steps, or "
                "GradientDescent(projection=400), whose limit is the pi-limit."
            )

    def cost(self, problem: Problem) -> tuple[float, float]:
        """Bytes and multiply-adds, at most about, from the numbers of rows, steps and samples."""
        rows, steps, half = len(problem.x_train), self.learner.steps, self.samples // HALVES
        batch = min(self.learner.batch_size or rows, rows)
        links = len(stack_of(self.network).between) - 1
        directions = min(half // 2, 2 * (rows + steps * batch))
        memory = 4.0 * half * ((links + 1) * (4 * rows + 64) + links * 4 * directions)
        step = batch * half * (4 * min(rows, problem.x_train.shape[1]) + 2 * rows)
        step += links * batch * half * (4 * directions + 4 * batch)
        return memory * HALVES, float(HALVES * steps * step)

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Finds the constants of the layers. Raises EmptyCell for a problem that is too large."""
        self.check(problem)
        sites = sites_of(self.network, self.scaling, problem.x_train.shape[1])
        return _Prepared(self, sites, problem, order, logs)


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: DynamicalMeanField
    sites: Sites
    problem: Problem
    order: int
    logs: int

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Every initial function leads to the same limit: `start` is not read.

        Raises `Diverged` where the loss leaves the finite numbers.
        """
        halves = self._exactly(work) if self.sites.linear else self._sampled(work)
        problem, loss = self.problem, self.limit.learner.loss
        train, test = (np.mean([getattr(x, n) for x in halves], axis=0) for n in ("train", "test"))
        lost = loss_value(train, problem.y_train, loss)
        trajectory = Trajectory(
            np.array(self._times, float), lost,
            loss_value(test, problem.y_test, loss),
            test,
            {k: np.mean([x.kernels[k] for x in halves], axis=0) for k in halves[0].kernels},
        )  # fmt: skip
        state = MeanFieldState(tuple(half.layers for half in halves))
        return Trained(state, trajectory, self._notes(halves, lost))

    @property
    def _times(self) -> tuple[int, ...]:
        return logged_steps(self.limit.learner.steps, self.logs)

    def _sampled(self, work: Work) -> tuple[Solution, ...]:
        size, hidden = self.limit.samples // HALVES, self.sites.hidden
        found = []
        for half in range(HALVES):
            rng = np.random.default_rng(half)
            spaces = tuple(Drawn(size, rng) for _ in hidden)
            found.append(self._solve(spaces, lambda share: work.advance(share / HALVES)))
        return tuple(found)

    def _exactly(self, work: Work) -> tuple[Solution, ...]:
        for doubling in itertools.count():
            spaces = tuple(Coordinates(256 << doubling) for _ in self.sites.hidden)
            shares: list[float] = []  # told at the end: an attempt may run out of coordinates
            try:
                found = self._solve(spaces, shares.append)
            except Full:
                continue
            work.advance(sum(shares))
            return (found,)
        raise AssertionError

    def _solve(
        self, spaces: tuple[AbstractSamples, ...], advance: Callable[[float], None]
    ) -> Solution:
        problem, learner = self.problem, self.limit.learner
        assert learner.lr is not None
        tolerance = EXACT if self.sites.linear else self.limit.tolerance
        particles = Particles(
            self.sites, spaces, problem.x_train, problem.y_train.shape[1],
            max(len(problem.probes), 1), tolerance,
        )  # fmt: skip
        chosen = batches(len(problem.x_train), learner.steps, learner.batch_size, self.order)
        factors = learner.schedule.factors(learner.steps)
        log = Log(problem, learner.loss, particles)
        log.write(0)
        for before, now in itertools.pairwise(self._times):
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    for number in range(before, now):
                        rows = slice(None) if chosen is None else chosen[number]
                        targets = problem.y_train[rows]
                        particles.step(
                            rows,
                            lambda out, y=targets: loss_slope(out, y, learner.loss),
                            Pace(learner.lr * float(factors[number]), learner.momentum,
                                 learner.weight_decay),
                        )  # fmt: skip
                    log.write(now)
            except FloatingPointError:
                raise diverged(WHAT, now) from None
            advance((now - before) / learner.steps)
        return log.solution()

    def _notes(self, halves: tuple[Solution, ...], lost: np.ndarray) -> tuple[str, ...]:
        ranks = ", ".join(f"{a} and {b}" for a, b in halves[0].ranks)
        met = f"the hidden matrices met {ranks} directions of features and gradients"
        if len(halves) == 1:
            notes = [f"Solved exactly, without samples{'; ' + met if ranks else ''}."]
        else:
            one, two = (np.concatenate([x.train, x.test], axis=1) for x in halves)
            apart = largest_gap(one, two)
            size = self.limit.samples // HALVES
            notes = [error_told(f"Monte Carlo: two halves of {size:,} samples", apart)]
            left_out = max(half.left_out for half in halves)
            if ranks:
                notes.append(f"{met[0].upper()}{met[1:]}, which left out at most {left_out:.1%}.")
            if left_out > 1.01 * self.limit.tolerance:
                notes.append("More directions found no room: raise samples.")
            notes += chaos_told(apart, self.problem.y_train, "lower lr, or raise samples")
        return (*notes, *growth_told(lost))
