"""The Adam limit as a limit: found in the table, trained, saved, asked for predictions."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from widthwise import settings
from widthwise.learner import AbstractLearner, Adam, Entrywise, SignDescent
from widthwise.limits.adam.blocks import Memory, blocks_of
from widthwise.limits.adam.half import Half, taken
from widthwise.limits.adam.neurons import GROUP, Counts, bytes_needed
from widthwise.limits.adam.pace import Left, left_of
from widthwise.limits.adam.pool import Pool, pool_of
from widthwise.limits.adam.sites import NoLimit, Sites, homogeneous, sites_of
from widthwise.limits.adam.state import AdamState
from widthwise.limits.adam.training import Training
from widthwise.limits.base import UNKEPT, AbstractLimit, AbstractPrepared, Start, Trained, Work
from widthwise.limits.halves import HALVES, growth_told
from widthwise.limits.tangent import feature_kernels
from widthwise.memory import check_free
from widthwise.network.layer import AbstractLayer
from widthwise.network.names import layer_names
from widthwise.network.stack import NoStack, stack_of
from widthwise.problem import Problem, loss_value
from widthwise.run import Trajectory
from widthwise.scaling import AbstractScaling

MANY_INPUTS = 256  # past which weights of the inputs cost more than they are worth, and half of
# the first layer's neurons move them
KEPT = 4e9  # bytes that the neurons' fields at the training rows may take
APART = 0.2  # difference of the halves, over the function's change, that sampling does not make


class AdamLimit(AbstractLimit):
    """f_{t+1} = f_t - lr K_t(chi_0, ..., chi_t): lazy networks under Adam, features frozen.

    >>> AdamLimit(Dense() >> Relu() >> Readout(), NTK(), Adam()).regime
    'lazy'

    The neural tangent operator K_t: every entry of every tensor runs Adam on its own gradient,
    sum over rows a of chi_a g(a), chi being the loss's slopes, and moves the function at x by
    g(x) times its step. K_t is the mean over the law of g at initialisation, where the two neurons
    that a hidden weight joins are independent. That law is sampled: fields of neurons are drawn
    from their exact Gaussian processes (past 4,096 training rows through random networks of width
    2,048), and every sampled entry keeps its own moments. What is not sampled is exact: steps,
    batches, schedules, losses, the readout's bias, and the part of steps that is linear in the
    averaged gradients (up to 4,096 training rows). The error, of order samples^-1/2, is told in
    the run's notes; it comes from two independent halves, whose mean is the answer.

    From the initial function of a finite network, or from zero. With b1 = b2 = 0 this is sign
    descent, g / (|g| + eps); with b1 = 0 it is RMSprop; with an eps far above the gradients,
    gradient descent with step size lr / eps. Weight decay, which shrinks the features, is followed
    where features and function are homogeneous in the weights of each layer.

    Args:
        network: Dense layers with or without nonlinearities, then a Readout.
        scaling, learner: a lazy scaling that scales Adam's gradients, as NTK() and Richness do.
        samples: neurons a layer, in both halves together; fewer where their fields at the training
            rows would take more than 4 GB (4 * samples * rows * outputs bytes a hidden layer).
    """

    source: ClassVar[str] = "yang2023adaptive, Theorems 2.4.7 and 2.4.9"
    regime: ClassVar[str] = "lazy"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (Adam, SignDescent)
    network: AbstractLayer
    scaling: AbstractScaling
    learner: Entrywise
    samples: int = 40_960

    def __check_init__(self):
        settings.whole(self, "samples", low=HALVES * GROUP)

    def refusal(self) -> str | None:
        name = type(self).__name__
        try:
            sites = sites_of(self.network, self.scaling, 1)
        except NoStack as error:
            return f"{name} is known for plain stacks of layers: {error}"
        except NoLimit as error:
            return f"{name} does not exist here: {error}"
        if self.learner.weight_decay and not homogeneous(sites):
            return (
                f"Weight decay bends the features of this network, and {name} follows it where it "
                "only shrinks them: leave weight_decay out, or use layers with bias_multiplier=0 "
                "that all train, and Relu(), Abs() or nothing between them."
            )
        return None

    def check(self, problem: Problem) -> None:
        """Raises MemoryError for neurons that do not fit."""
        sites, counts, (n, d) = self.sites(problem), self.counts(problem), problem.x_train.shape
        entries = sum(
            block.neurons * block.entries(d, counts.outputs) for block in blocks_of(sites, counts)
        )
        need = HALVES * (bytes_needed(sites, counts, n) + 4 * len(Memory._fields) * entries)
        rows = f"{len(problem.x_train):,} training rows"
        remedy = f"use fewer rows, or limit={type(self).__name__}(..., samples=...) with fewer"
        check_free(int(1.3 * need), f"The Adam limit's neurons at {rows}", remedy)

    def sites(self, problem: Problem) -> Sites:
        """The constants of the layers."""
        return sites_of(self.network, self.scaling, problem.x_train.shape[1])

    def counts(self, problem: Problem) -> Counts:
        """Neurons of a half, in groups: as many as are asked for, or as fit into 4 GB."""

        share = 1 if problem.x_train.shape[1] <= MANY_INPUTS else 2

        def of(groups: int) -> Counts:
            return Counts(groups, -(-groups // share), problem.y_train.shape[1])

        groups, sites = -(-self.samples // (HALVES * GROUP)), self.sites(problem)
        need = HALVES * bytes_needed(sites, of(groups), len(problem.x_train))
        return of(max(1, min(groups, int(groups * KEPT / max(need, 1)))))

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Neurons are drawn when a training first needs them, once for all initial functions."""
        self.check(problem)
        return _Prepared(self, problem, order, logs)


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: AdamLimit
    problem: Problem
    order: int
    logs: int

    @functools.cached_property
    def pool(self) -> Pool:
        """The neurons that steps move."""
        limit, problem = self.limit, self.problem
        return pool_of(limit.sites(problem), limit.counts(problem), problem.x_train)

    @functools.cached_property
    def left(self) -> Left:
        """What weight decay leaves, by step."""
        return left_of(self.limit.learner, self.limit.sites(self.problem))

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        problem, learner = self.problem, self.limit.learner
        zero = np.zeros_like(problem.y_train), np.zeros_like(problem.y_test)
        f_train, f_test = zero if start is None else (start.train, start.test)
        halves = tuple(
            Half(one.sites, one.counts, layers, self.pool.kernels, problem.x_train)
            for one, layers in zip(self.pool.neurons, self.pool.layers, strict=True)
        )
        name = repr((self.limit, self.order, self.logs, float(np.sum(f_train))))
        log = Training(
            halves, problem, learner, self.left, f_train, self.order, self.logs, work, name
        ).run()
        steps = [one.step for one in log]
        function, change = (part[steps][:, None, None] for part in self.left)
        on_train = change * np.stack([one.taken for one in log], axis=1)
        on_test = change * np.stack([
            taken(one, tuple(logged.moved[i] for logged in log), problem.x_test)
            for i, one in enumerate(self.pool.neurons)
        ])  # fmt: skip
        test = function * f_test - on_test.mean(axis=0)
        train = function * f_train - on_train.mean(axis=0)
        lost = loss_value(train, problem.y_train, learner.loss)
        trajectory = Trajectory(
            np.array(steps, float), lost, loss_value(test, problem.y_test, learner.loss), test,
            self._feature_kernels(steps),
        )  # fmt: skip
        state = AdamState(
            tuple(zip(self.pool.neurons, log[-1].moved, strict=True)), problem.x_train.shape[1],
            None if start is None else start.function, Left(*(part[-1] for part in self.left)),
        )  # fmt: skip
        return Trained(
            state, trajectory, self._notes(np.concatenate([on_train, on_test], axis=2), lost)
        )

    def _feature_kernels(self, steps: list[int]) -> dict[str, np.ndarray]:
        """Those at initialisation, shrunk by decay: twice by each layer's weights."""
        network = self.limit.network
        found = feature_kernels(network, self.limit.scaling, self.problem, len(steps))
        weights = (self.left.function / self.left.change)[steps, None, None]
        for index, name in layer_names(network):
            through = sum(position <= index for position in stack_of(network).affine)
            found[name] = found[name] * weights ** (2 * through)
        return found

    def _notes(self, taken: np.ndarray, lost: np.ndarray) -> tuple[str, ...]:
        """`taken` (halves, logged steps, rows, outputs): from the initial function."""
        one, two = taken
        error = np.sqrt(np.mean((one - two) ** 2, axis=(1, 2))) / 2
        change = np.sqrt(np.mean(taken.mean(axis=0) ** 2, axis=(1, 2)))
        worst = int(np.argmax(error))
        share = error[worst] / max(change[worst], 1e-300)
        counts = self.pool.neurons[0].counts
        notes = [
            f"Monte Carlo: two halves of {counts.groups * GROUP:,} neurons a layer "
            f"({counts.input_groups * GROUP:,} for the inputs' weights); the predictions' standard "
            f"error is {error[worst]:.2g}, {share:.1%} of the function's change (rms over rows and "
            "outputs, at the logged step where it is largest)."
        ]
        if 2 * share > APART:
            notes.append(
                "The two halves come apart: neurons are too few, or training is past the edge of "
                "stability, where steps of one size turn around the minimum; give more samples, "
                "raise eps, lower lr or let it fall (Cosine())."
            )
        return (*notes, *growth_told(lost))
