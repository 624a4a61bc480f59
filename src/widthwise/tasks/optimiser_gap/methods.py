"""What is compared: finite networks under Adam, the Adam limit, and kernels without Adam."""

import abc
import dataclasses
import functools
from collections.abc import Callable

from widthwise.finite import FiniteNetwork, LinearisedNetwork
from widthwise.finite import train as train_finite
from widthwise.finite.train import InitialFunction
from widthwise.learner import Adam, GradientDescent, GradientFlow
from widthwise.limits import AdamLimit
from widthwise.limits.base import AbstractLimit, Start
from widthwise.limits.table import lookup
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem
from widthwise.scaling import NTK, AbstractScaling, MuP
from widthwise.stepsize import with_step_size
from widthwise.tasks.optimiser_gap.outcome import Trained

Training = Callable[[float | None, int], Trained]  # of a step size and a seed

LOGS = 12
MOMENTUM = 0.9
FINITE = "finite, Adam"
MOVING = "finite with moving features, Adam"
LINEARISED = "finite linearised, Adam"
LIMIT = "Adam limit"
DESCENT = "NTK, gradient descent"
HEAVY_BALL = f"NTK, momentum {MOMENTUM:g}"
REGRESSION = "NTK, to the end"


@dataclasses.dataclass(frozen=True)
class AbstractMethod(abc.ABC):
    """A way to train, at any step size and from any seed's initial function."""

    network: AbstractLayer
    width: int
    learner: Adam | GradientDescent | GradientFlow

    @abc.abstractmethod
    def check(self, problem: Problem) -> None:
        """Refuses what cannot be computed, before anything is."""

    @abc.abstractmethod
    def first_step(self, problem: Problem) -> float | None:
        """A step size to look around; None where there is none to choose."""

    @abc.abstractmethod
    def on(self, problem: Problem) -> Training:
        """Trains on a problem; what step sizes and seeds share is computed once.

        The seed draws the initial weights and the batches, alike for all methods. Raises
        `Diverged` for a step size past what is stable.
        """


@dataclasses.dataclass(frozen=True)
class Finite(AbstractMethod):
    """A network of finite width under Adam."""

    scaling: AbstractScaling = NTK()
    linearised: bool = False

    def check(self, problem):
        pass

    def first_step(self, problem):
        return with_step_size(self.network, self.scaling, self.learner, problem).lr

    def on(self, problem):
        net = drawn_network(self.network, self.width, self.scaling, problem)
        made = LinearisedNetwork(net) if self.linearised else net

        def train(lr, seed):
            _, found = train_finite(
                made, problem, self.learner, lr=lr, seed=seed, order=seed, logs=LOGS
            )
            return Trained(found.steps, found.train_loss, found.predictions[-1])

        return train


@dataclasses.dataclass(frozen=True)
class AtInfinity(AbstractMethod):
    """A lazy limit, from the initial function of the finite network."""

    samples: int = 0  # of the Adam limit

    def limit(self, lr: float | None) -> AbstractLimit:
        learner = self.learner
        if lr is not None:
            learner = dataclasses.replace(learner, lr=lr)
        chosen = None
        if isinstance(learner, Adam):
            chosen = AdamLimit(self.network, NTK(), learner, samples=self.samples)
        return lookup(self.network, NTK(), learner, chosen)

    def check(self, problem):
        self.limit(None).check(problem)

    def first_step(self, problem):
        if isinstance(self.learner, GradientFlow):
            return None
        return with_step_size(self.network, NTK(), self.learner, problem).lr

    def on(self, problem):
        net = drawn_network(self.network, self.width, NTK(), problem)

        @functools.lru_cache(maxsize=1)  # while it is held, the next finds its neurons
        def prepared(lr, order):
            return self.limit(lr).prepare(problem, order=order, logs=LOGS)

        def train(lr, seed):
            function = InitialFunction(net, seed)
            start = Start(function(problem.x_train), function(problem.x_test), function)
            # without a step size there are no batches: one spectrum serves all seeds
            trained = prepared(lr, 0 if lr is None else seed).train(start)
            found = trained.trajectory
            return Trained(found.steps, found.train_loss, found.predictions[-1], trained.notes)

        return train


def drawn_network(
    network: AbstractLayer, width: int, scaling: AbstractScaling, problem: Problem
) -> FiniteNetwork:
    """The finite network that a seed's initial weights are those of."""
    inputs, outputs = problem.x_train.shape[1], problem.y_train.shape[1]
    return FiniteNetwork(network, width, inputs, outputs, scaling, entrywise=True)


def methods_of(
    network: AbstractLayer, width: int, learner: Adam, samples: int
) -> dict[str, AbstractMethod]:
    """All that are compared, by name.

    >>> list(methods_of(Dense() >> Relu() >> Readout(), 64, Adam(), 1024))[3]
    'Adam limit'
    """
    descent = GradientDescent(
        steps=learner.steps, batch_size=learner.batch_size, loss=learner.loss,
        schedule=learner.schedule,
    )  # fmt: skip
    known: dict[str, AbstractMethod] = {
        FINITE: Finite(network, width, learner),
        MOVING: Finite(network, width, learner, MuP()),
        LINEARISED: Finite(network, width, learner, linearised=True),
        LIMIT: AtInfinity(network, width, learner, samples),
        DESCENT: AtInfinity(network, width, descent),
        HEAVY_BALL: AtInfinity(network, width, dataclasses.replace(descent, momentum=MOMENTUM)),
    }
    if learner.loss == "mse":  # cross-entropy has no end
        known[REGRESSION] = AtInfinity(network, width, GradientFlow())
    return known
