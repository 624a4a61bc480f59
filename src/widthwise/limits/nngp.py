"""The lazy posterior: a Gaussian process whose covariance is the network's kernel."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from widthwise.kernels import MonteCarlo
from widthwise.kernels.matrix import check_memory
from widthwise.kernels.monte_carlo import told
from widthwise.learner import AbstractLearner, Posterior
from widthwise.limits.base import (
    UNKEPT,
    AbstractLimit,
    AbstractPrepared,
    EmptyCell,
    Start,
    Trained,
    Work,
)
from widthwise.limits.bound import InducingFactor
from widthwise.limits.evidence import best_variances
from widthwise.limits.inducing import (
    all_rows,
    check_points,
    points_of,
    refusal_of,
    settle,
)
from widthwise.limits.large import Way, way
from widthwise.limits.large_state import GIVEN, LargeState, large_posterior
from widthwise.limits.noise import best_noise
from widthwise.limits.shared import shared_kernels
from widthwise.limits.tangent import feature_kernels
from widthwise.network.begin import trial_inputs
from widthwise.network.build import output_exponent, specify
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem, loss_value
from widthwise.run import AbstractState, Prediction, Trajectory
from widthwise.scaling import AbstractScaling
from widthwise.solve import Factor, cholesky

CHOSE = {"evidence": "The log evidence chose", "leave_one_out": "Leaving out one row chose"}


class NNGP(AbstractLimit):
    """Gaussian-process regression with the covariance of infinitely wide random networks.

    >>> limit = NNGP(Dense() >> Relu() >> Readout(), NTK(), Posterior(noise=0.1))
    >>> limit.regime
    'lazy'

    mean = k(x, X) (K + noise I)^-1 y and covariance k(x, x') - k(x, X) (K + noise I)^-1 k(X, x'),
    of the function; for a new target add the noise to its variance. Classes are regressed on
    one-hot targets. Noise and variances that are not given are chosen by the log evidence, or by
    leaving out one row.

    Where float64 matrices and factors find no memory, entries are known to 3e-7 and the system
    is solved in float64 by conjugate gradients: to a residual of 1e-8, preconditioned by a float32
    factor that takes half of the matrix's square while the matrix takes the other, or, within less
    memory, to 1e-5 by 200 to 3,000 of its columns, the matrix being read from a store or computed
    anew in every product.
    """

    source: ClassVar[str] = (
        "lee2018, eqs. (8) and (9); rasmussen2006, eqs. (2.25), (2.26), (2.30); "
        "titsias2009, variational lower bound"
    )
    regime: ClassVar[str] = "lazy"
    within_resources: ClassVar[bool] = True
    follows_start: ClassVar[bool] = False
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (Posterior,)
    network: AbstractLayer
    scaling: AbstractScaling
    learner: Posterior

    def refusal(self) -> str | None:
        if (sentence := refusal_of(self.network, self.learner)) is not None:
            return sentence
        if self.learner.tune and isinstance(self.network, MonteCarlo):
            return (
                "The log evidence chooses variances by gradients of closed forms, which "
                "MonteCarlo(network) has not: leave tune out."
            )
        vanishing = (
            output_exponent(specify(self.network, trial_inputs(self.network), None), self.scaling)
            < 0
        )
        if self.learner.kernel == "nngp" and vanishing:
            return (
                f"Under {self.scaling!r} the output's variance vanishes as the width grows, so "
                "NNGP has no prior to condition: use NTK() or Standard()."
            )
        return None

    def check(self, problem: Problem) -> None:
        """Raises MemoryError for kernels that do not fit, EmptyCell for what needs them whole."""
        self._way(problem)

    def _way(self, problem: Problem) -> Way:
        rows, others = len(problem.x_train), len(problem.x_test)
        if (points := points_of(self.learner, problem)) is not None:
            check_points(points, problem)
            return "whole"
        if isinstance(self.network, MonteCarlo) and not problem.resources.named:
            check_memory(rows, rows + others)
            return "whole"
        found = way(rows, others, problem.x_train.shape[1], problem.resources)
        if found != "whole" and isinstance(self.network, MonteCarlo):
            raise EmptyCell(
                "The kernels of MonteCarlo(network) are solved with as a whole: leave store and "
                "memory out, or use fewer rows."
            )
        if found != "whole" and self.learner.criterion == "leave_one_out":
            raise EmptyCell(
                f"Leaving out each of {rows:,} rows needs the whole spectrum of their kernel: use "
                "criterion='evidence', more memory, or fewer rows."
            )
        return found

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Chooses what is not given, then factorises the kernel of the training rows."""
        network, noise, how = self.network, self.learner.noise, self._way(problem)
        x, y, which = problem.x_train, problem.y_train, self.learner.kernel
        criterion, chose = self.learner.criterion, CHOSE[self.learner.criterion]
        if (count := points_of(self.learner, problem)) is not None:
            return self._through(problem, count)
        notes = all_rows(self.learner, problem)
        if self.learner.tune:
            network, noise = best_variances(
                network, x, y, scaling=self.scaling, kernel=which, noise=noise, criterion=criterion
            )
            notes.append(f"{chose} noise {noise:.3g} and the network {network!r}.")
        if how != "whole":
            state, said = large_posterior(
                network, x, y, which, scaling=self.scaling, noise=noise, resources=problem.resources
            )
            return _Prepared(self, problem, state, (*notes, *said))
        found = shared_kernels(network, x, scaling=self.scaling)
        notes += told(network, found, which)
        kernel = getattr(found, which)
        if noise is None:
            noise, _ = best_noise(kernel, y, criterion)
            notes.append(f"{chose} a noise variance of {noise:.3g}.")
        factor = cholesky(kernel + noise * np.eye(len(kernel)))
        if factor.jitter:
            notes.append(f"The kernel needed a jitter of {factor.jitter:g} of its diagonal.")
        state = PosteriorState(
            network, self.scaling, which, x, factor.solve(y), factor, float(noise)
        )
        return _Prepared(self, problem, state, tuple(notes))

    def _through(self, problem: Problem, count: int) -> AbstractPrepared:
        """With few of the rows in place of all."""
        found = settle(
            self.network, problem.x_train, problem.y_train, count=count, learner=self.learner,
            scaling=self.scaling,
        )  # fmt: skip
        factor, weights = found.bound.posterior(found.prior, found.noise)
        state = PosteriorState(
            found.network, self.scaling, self.learner.kernel, found.points, weights, factor,
            found.noise,
        )  # fmt: skip
        return _Prepared(self, problem, state, found.notes)


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: NNGP
    problem: Problem
    state: "PosteriorState | LargeState"
    notes: tuple[str, ...]

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Bayes starts from no function, so `start` changes nothing."""
        state, problem = self.state, self.problem
        kernels = feature_kernels(state.network, state.scaling, problem, 2)
        return Trained(state, trajectory_of(state, problem, kernels), self.notes)


def trajectory_of(
    state: Any, problem: Problem, kernels: dict[str, Float[np.ndarray, "2 q q"]]
) -> Trajectory:
    """From the prior's mean to that of a state with weights and noise, in one step."""
    if len(state.weights) < len(problem.y_train):
        train = state.predict(problem.x_train, False).value
    else:  # (K + noise) weights = y: what is left of the targets at the training rows is noise
        train = problem.y_train - state.noise * state.weights
    test = state.predict(problem.x_test, False).value if len(problem.x_test) else None
    test = np.empty((0, train.shape[1])) if test is None else test
    before, after = np.zeros_like(train), np.zeros_like(test)
    losses = [
        [loss_value(f, y, "mse") for f in (zero, mean)]
        for zero, mean, y in ((before, train, problem.y_train), (after, test, problem.y_test))
    ]
    return Trajectory(
        np.array([0.0, 1.0]), np.array(losses[0]), np.array(losses[1]), np.stack([after, test]),
        kernels,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PosteriorState(AbstractState):
    """The factorised kernel of the rows that stand for all, and the weights of the mean."""

    network: AbstractLayer
    scaling: AbstractScaling
    kernel: str
    x_train: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, "n k"]
    factor: Factor | InducingFactor
    noise: float

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        cross = getattr(
            shared_kernels(self.network, x, self.x_train, scaling=self.scaling), self.kernel
        )
        value = cross @ self.weights
        if not covariance:
            return Prediction(value, None, GIVEN)
        prior = getattr(shared_kernels(self.network, x, scaling=self.scaling), self.kernel)
        half = self.factor.half(cross.T)
        return Prediction(value, prior - half.T @ half, GIVEN)
