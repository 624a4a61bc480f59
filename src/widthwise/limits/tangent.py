"""The lazy limit of gradient descent: a network linear in its parameters, its kernel frozen."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from widthwise.kernels import KernelEstimates, KernelMatrices
from widthwise.kernels.matrix import check_memory, layer_kernels
from widthwise.kernels.monte_carlo import told
from widthwise.learner import AbstractLearner, GradientDescent, GradientFlow
from widthwise.limits.base import UNKEPT, AbstractLimit, AbstractPrepared, Start, Trained, Work
from widthwise.limits.descent import AbstractDescent, descent_of, frozen_refusal
from widthwise.limits.shared import shared_kernels
from widthwise.network.layer import AbstractLayer
from widthwise.network.names import layer_names
from widthwise.problem import Problem, loss_value
from widthwise.run import AbstractState, Prediction, Trajectory
from widthwise.scaling import AbstractScaling

OVER_STARTS = "the mean and covariance over initialisations"
FROM_START = "the initial function of one finite network"
FROM_ZERO = "an initial function of zero"


class TangentKernel(AbstractLimit):
    """f_t = f_0 - K a_t: descent in function space with the tangent kernel at initialisation.

    >>> limit = TangentKernel(Dense() >> Relu() >> Readout(), NTK(), GradientFlow())
    >>> limit.regime
    'lazy'

    Squared error: exact at any step size, momentum, ridge and time, mini-batches included, from one
    initial function or in mean and covariance over all of them. Cross-entropy: steps are
    exact, a flow is integrated to 1e-8, from one initial function or from zero.
    """

    source: ClassVar[str] = "jacot2018, Theorem 2; lee2019, eqs. (8) to (16)"
    regime: ClassVar[str] = "lazy"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (GradientDescent, GradientFlow)
    network: AbstractLayer
    scaling: AbstractScaling
    learner: GradientDescent | GradientFlow

    def refusal(self) -> str | None:
        return None if isinstance(self.learner, GradientFlow) else frozen_refusal(self.learner)

    def check(self, problem: Problem) -> None:
        """Raises MemoryError for kernels that do not fit."""
        check_memory(len(problem.x_train), len(problem.x_train) + len(problem.x_test))

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Kernels of the training and test rows, and the learner's dynamics on them.

        Raises `Diverged` for a step size past what is stable.
        """
        self.check(problem)
        train = shared_kernels(self.network, problem.x_train, scaling=self.scaling)
        descent = descent_of(train.ntk, self.learner, order, logs)
        if len(problem.x_test):
            cross = shared_kernels(
                self.network, problem.x_test, problem.x_train, scaling=self.scaling
            )
        else:
            cross = KernelMatrices(*(np.empty((0, len(problem.x_train))) for _ in range(2)))
        return _Prepared(self, problem, train, cross, descent)


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: TangentKernel
    problem: Problem
    train_kernels: KernelMatrices | KernelEstimates
    cross: KernelMatrices | KernelEstimates
    descent: AbstractDescent

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        problem, loss = self.problem, self.limit.learner.loss
        zero = np.zeros_like(problem.y_train), np.zeros_like(problem.y_test)
        f_train, f_test = zero if start is None else (start.train, start.test)
        moved = self.descent.coefficients(f_train, problem.y_train)
        train = f_train - self.train_kernels.ntk @ moved
        test = f_test - self.cross.ntk @ moved
        lost = loss_value(test, problem.y_test, loss)
        trajectory = Trajectory(
            np.array(self.descent.times), loss_value(train, problem.y_train, loss), lost, test,
            feature_kernels(self.limit.network, self.limit.scaling, problem, len(moved)),
        )  # fmt: skip
        response = self.descent.response() if start is None else None
        state = TangentState(
            self.limit.network, self.limit.scaling, problem.x_train, moved[-1],
            None if start is None else start.function, response,
            None if response is None else response @ self.train_kernels.nngp @ response.T,
        )  # fmt: skip
        notes = told(self.limit.network, self.train_kernels, "ntk")
        return Trained(state, trajectory, (*notes, *self.descent.notes()))


@dataclasses.dataclass(frozen=True)
class TangentState(AbstractState):
    """f(x) = f_0(x) - K(x, X) a; with `response` also the covariance over f_0."""

    network: AbstractLayer
    scaling: AbstractScaling
    x_train: Float[np.ndarray, "n d"]
    coefficients: Float[np.ndarray, "n k"]
    start: object | None  # the initial function, rows -> outputs
    response: Float[np.ndarray, "n n"] | None  # a = response (f_0 - y)
    spread: Float[np.ndarray, "n n"] | None  # covariance of a over f_0

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        cross = shared_kernels(self.network, x, self.x_train, scaling=self.scaling)
        value = -cross.ntk @ self.coefficients
        if self.start is not None:
            return Prediction(value + self.start(x), None, FROM_START)  # type: ignore[operator]
        if self.response is None:
            return Prediction(value, None, FROM_ZERO)
        if not covariance:
            return Prediction(value, None, OVER_STARTS)
        prior = shared_kernels(self.network, x, scaling=self.scaling).nngp
        mixed = cross.ntk @ (self.response @ cross.nngp.T)
        found = prior - mixed - mixed.T + cross.ntk @ self.spread @ cross.ntk.T
        return Prediction(value, found, OVER_STARTS)


def feature_kernels(
    network: AbstractLayer, scaling: AbstractScaling, problem: Problem, times: int
) -> dict[str, Float[np.ndarray, "t q q"]]:
    """The layers' kernels at the probe rows, the same at all times: lazy features stay."""
    found = layer_kernels(network, problem.probes, scaling)
    return {
        name: np.broadcast_to(found[index], (times, *found[index].shape))
        for index, name in layer_names(network)
    }
