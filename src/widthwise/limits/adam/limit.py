"""The Adam limit as a limit: found in the table, trained, saved, asked for predictions."""

import dataclasses
import functools
import time
from typing import ClassVar, NamedTuple

import numpy as np

from widthwise import settings, store
from widthwise.learner import AbstractLearner, Adam
from widthwise.limits.adam.blocks import Batch, Memory
from widthwise.limits.adam.compiled import CHUNK, pace_of
from widthwise.limits.adam.half import Half, Moved, Neurons, drawn, taken
from widthwise.limits.adam.images import images_of
from widthwise.limits.adam.neurons import CHUNKS, Counts, bytes_needed
from widthwise.limits.adam.sites import NoLimit, Sites, sites_of
from widthwise.limits.adam.state import AdamState
from widthwise.limits.base import UNKEPT, AbstractLimit, AbstractPrepared, Start, Trained, Work
from widthwise.limits.descent import loss_slope
from widthwise.limits.tangent import feature_kernels
from widthwise.memory import check_free
from widthwise.network.layer import AbstractLayer
from widthwise.network.stack import NoStack
from widthwise.problem import Problem, batches, check_growth, diverged, logged_steps, loss_value
from widthwise.run import Trajectory
from widthwise.scaling import AbstractScaling

HALVES = 2  # independent solutions, whose difference tells the error of their mean
GROUP = CHUNKS * CHUNK
INPUT_SHARE = 4  # one in so many of the first layer's neurons moves the inputs' weights
KEPT = 4e9  # bytes that all neurons may take
SECONDS = 60.0  # between two checkpoints
WHAT = "The Adam limit"


class AdamLimit(AbstractLimit):
    """Lazy networks under Adam: f_{t+1} = f_t - lr K_t(chi_0, ..., chi_t), features frozen.

    >>> AdamLimit(Dense() >> Relu() >> Readout(), NTK(), Adam()).regime
    'lazy'

    """

    source: ClassVar[str] = "yang2023adaptive, Theorems 2.4.7 and 2.4.9"
    regime: ClassVar[str] = "lazy"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (Adam,)
    network: AbstractLayer
    scaling: AbstractScaling
    learner: Adam
    samples: int = 65536

    def __check_init__(self):
        settings.whole(self, "samples", low=HALVES * GROUP)

    def refusal(self) -> str | None:
        if self.learner.weight_decay:
            return "AdamLimit has frozen features: leave weight_decay out."
        try:
            sites_of(self.network, self.scaling, 1)
        except NoStack as error:
            return f"AdamLimit is known for plain stacks of layers: {error}"
        except NoLimit as error:
            return f"AdamLimit does not exist here: {error}"
        return None

    def check(self, problem: Problem) -> None:
        need = HALVES * bytes_needed(self.sites(problem), self.counts(problem), len(problem.x_train))
        check_free(int(1.3 * need), "The neurons of the Adam limit", "use fewer rows")

    def sites(self, problem: Problem) -> Sites:
        return sites_of(self.network, self.scaling, problem.x_train.shape[1])

    def counts(self, problem: Problem) -> Counts:
        """Of a half: what is asked for, or what fits."""
        groups = -(-self.samples // (HALVES * GROUP))
        return Counts(groups, -(-groups // INPUT_SHARE), problem.y_train.shape[1])

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        self.check(problem)
        return _Prepared(self, problem, order, logs)


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: AdamLimit
    problem: Problem
    order: int
    logs: int

    @functools.cached_property
    def neurons(self) -> tuple[Neurons, ...]:
        limit, problem = self.limit, self.problem
        sites, counts = limit.sites(problem), limit.counts(problem)
        return tuple(
            Neurons(sites, counts, images_of(sites, problem.x_train, half), half)
            for half in range(HALVES)
        )

    @functools.cached_property
    def layers(self):
        """The neurons at the training rows: drawn once for all initial functions."""
        return tuple(drawn(half) for half in self.neurons)

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        return _Training(self, start, work).run()


class _Log(NamedTuple):
    """What is written at a logged step, of both halves."""

    step: int
    train: np.ndarray
    moved: tuple[Moved, ...]


class _Training:
    def __init__(self, prepared: _Prepared, start: Start | None, work: Work):
        self.prepared, self.start, self.work = prepared, start, work
        self.limit, self.problem = prepared.limit, prepared.problem
        self.learner = self.limit.learner
        problem, learner = self.problem, self.learner
        self.times = logged_steps(learner.steps, prepared.logs)
        chosen = batches(len(problem.x_train), learner.steps, learner.batch_size, prepared.order)
        self.all = Batch.of(problem.x_train)
        self.batch = (
            lambda t: self.all if chosen is None else Batch.of(problem.x_train, chosen[t])
        )
        self.factors = learner.schedule.factors(learner.steps)
        self.f = np.zeros_like(problem.y_train) if start is None else start.train
        self.halves = tuple(
            Half(n.sites, n.counts, layers, problem.x_train)
            for n, layers in zip(prepared.neurons, prepared.layers, strict=True)
        )
        self.log = []

    def run(self) -> Trained:
        learner, y = self.learner, self.problem.y_train
        nothing = Batch.of(self.problem.x_train[:0])
        chi0 = np.zeros((0, y.shape[1]))
        zero = np.zeros((len(self.halves), len(self.all.rows), y.shape[1]))
        self.write(0, zero)
        batch = self.batch(0)
        taken = zero[:, batch.rows]
        pace = pace_of(0, 0, 0, 0, 0)
        for t in range(learner.steps):
            pace = pace_of(learner.lr * self.factors[t], learner.b1, learner.b2, learner.eps, t)
            following = self.batch(t + 1) if t + 1 < learner.steps else self.all
            new = []
            for half, gone in zip(self.halves, taken, strict=True):
                out = self.f[batch.rows] - gone
                chi = loss_slope(out, y[batch.rows], learner.loss) / len(out)
                new.append(half.visit(pace, batch, chi, following))
            taken = np.stack(new)
            if t + 1 in self.times:
                whole = taken
                if len(following.rows) != len(self.all.rows):
                    whole = np.stack([h.visit(pace, nothing, chi0, self.all) for h in self.halves])
                self.write(t + 1, whole)
            batch = following
            self.work.advance(1 / learner.steps)
        return self.trained()

    def write(self, step, gone):
        out = self.f - gone.mean(axis=0)
        lost = loss_value(out, self.problem.y_train, self.learner.loss)
        self.first = lost if not self.log else self.first
        check_growth(WHAT, step, lost, self.first)
        self.log.append(_Log(step, gone, tuple(h.moved() for h in self.halves)))

    def trained(self):
        problem, loss = self.problem, self.learner.loss
        start = np.zeros_like(problem.y_test) if self.start is None else self.start.test
        gone = np.stack([
            taken(n, tuple(l.moved[i] for l in self.log), problem.x_test)
            for i, n in enumerate(self.prepared.neurons)
        ])
        test = start - gone.mean(axis=0)
        train = self.f - np.stack([l.train.mean(axis=0) for l in self.log])
        lost = loss_value(train, problem.y_train, loss)
        tl = loss_value(test, problem.y_test, loss) if len(problem.y_test) else np.full(len(lost), np.nan)
        kern = feature_kernels(self.limit.network, self.limit.scaling, problem, len(lost))
        tr = Trajectory(np.array(self.times, float), lost, tl, test, kern)
        state = AdamState(tuple((n, m) for n, m in zip(self.prepared.neurons, self.log[-1].moved)), problem.x_train.shape[1], None if self.start is None else self.start.function)
        apart = gone[0] - gone[1]
        note = f"half-diff rms {np.sqrt(np.mean(apart**2, axis=(1,2)))/2} of {np.sqrt(np.mean(test**2,axis=(1,2)))}"
        return Trained(state, tr, (note,))
