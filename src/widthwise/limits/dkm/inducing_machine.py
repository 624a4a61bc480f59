"""The rich posterior through inducing points in mini-batches: vectors and images of any number."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import sklearn.cluster
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from widthwise.learner import AbstractLearner, Posterior
from widthwise.limits.base import (
    UNKEPT,
    AbstractLimit,
    AbstractPrepared,
    Elsewhere,
    EmptyCell,
    Start,
    Trained,
    Work,
)
from widthwise.limits.dkm.blocks import JITTER
from widthwise.limits.dkm.inducing_state import InducingState, check_start
from widthwise.limits.dkm.layers import NO_NU, NO_TANGENT_KERNEL, as_drawn, is_linear
from widthwise.limits.dkm.minibatch import (
    Bound,
    Course,
    Fitted,
    divergences,
    fit,
    labels_of,
    start,
)
from widthwise.limits.dkm.sites import Machine, drawn, nearby, points_of, refusal_of, sites_of
from widthwise.limits.dkm.variational import PREDICTING, TRAINING
from widthwise.limits.nngp import CHOSE
from widthwise.limits.noise import best_noise
from widthwise.limits.shared import digest, shared_kernels
from widthwise.network.begin import readers
from widthwise.network.layer import AbstractLayer
from widthwise.network.names import layer_names
from widthwise.problem import Problem, loss_value
from widthwise.run import Trajectory
from widthwise.scaling import AbstractScaling
from widthwise.solve import float64

CHOOSING = 1000  # rows from which the noise is chosen
CANDIDATES = 20_000  # rows, or patches, among which inducing points are chosen


class InducingMachine(AbstractLimit):
    """Deep kernel machines through inducing points, trained in mini-batches of rows.

    >>> learner = Posterior(prior="deep_gp", nu=1.0, likelihood="categorical",
    ...                     inducing=Inducing(points=(16, 32), epochs=5, batch_size=100))
    >>> net = Unflatten() >> Conv() >> Relu() >> Conv(strides=(2, 2)) >> Relu()
    >>> InducingMachine(net >> GlobalAveragePool() >> Readout(), MuP(), learner).regime
    'rich'

    What `DeepKernelMachine` is, but with the Gram matrices of a few inducing points only, beside
    which rows are as in the prior. It maximises

        sum_n E log p(y_n | f_n) - sum_l nu KL(G^l | K(G^l-1)) - sum_j KL(q(u_j) | p(u_j))

    with normal q(u_j) of one covariance, the likelihood summed over all rows: nu is relative to
    that. Every `Conv()` has inducing variables of its own, mixtures of those before it that are
    learned; the first ones are patches of the data, which are learned too. Covariances between the
    positions of a row are not kept: poolings take what the inducing variables explain of them.

    Classes have one output each and the softmax of them as chances, whose logarithm's expectation
    is a mean over 32 draws in training; predictions are mean chances over 1,000. Noise that is not
    given is the best for the `NNGP` on at most 1,000 rows, and stays.

    Adam takes `lr` and drops it tenfold at 40 and at 80 % of the steps. What is done is kept after
    each epoch, and everything follows from `order`. All in float64, with a jitter of 1e-6 of the
    mean diagonal wherever the covariance of inducing variables is factorised.
    """

    source: ClassVar[str] = (
        "yang2023theory, inducing points; milsom2024, inter-domain inducing patches; "
        "milsom2024stochastic, Wishart noise"
    )
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (Posterior,)
    follows_start: ClassVar[bool] = False
    network: AbstractLayer
    scaling: AbstractScaling
    learner: Posterior

    def refusal(self) -> str | None:
        learner, inducing = self.learner, self.learner.inducing
        if learner.kernel == "ntk":
            return NO_TANGENT_KERNEL
        closed = learner.likelihood == "gaussian" and not readers(self.network)
        if inducing is None or (closed and inducing.batch_size is None):
            sentence = (
                "InducingMachine goes through inducing points, in mini-batches: give Posterior "
                "inducing=Inducing(points=100, batch_size=100)."
            )
            if not readers(self.network):
                return Elsewhere(sentence)
            return refusal_of(self.network) or sentence
        if learner.nu is None:
            return NO_NU
        if learner.tune:
            return "InducingMachine keeps the network's variances: leave tune out."
        if learner.prior == "network" and not is_linear(self.network):
            return (
                "The rich posterior of networks with nonlinearities has no inducing points: use "
                "Posterior(prior='deep_gp')."
            )
        return refusal_of(self.network)

    def check(self, problem: Problem) -> None:
        """Raises EmptyCell for settings that the rows do not go with."""
        learner = self.learner
        if learner.likelihood == "categorical" and problem.task != "classification":
            raise EmptyCell(
                "The categorical likelihood is of classes, and the target is a number: leave "
                "likelihood out."
            )
        if learner.likelihood == "gaussian" and learner.noise is None and readers(self.network):
            raise EmptyCell(
                "The noise is chosen by the kernels of vectors, and the network reads images: give "
                "Posterior(noise=...)."
            )
        try:
            sites_of(self._machine(problem))
        except ValueError as error:
            raise EmptyCell(str(error)) from None

    def _machine(self, problem: Problem) -> Machine:
        learner = self.learner
        assert learner.inducing is not None and learner.nu is not None  # `refusal` has seen to it
        columns, points = problem.x_train.shape[1], points_of(learner.inducing)
        return Machine(self.network, columns, self.scaling, points, learner.nu)

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Chooses the noise where it is not given, and the first inducing points."""
        self.check(problem)
        learner, inducing = self.learner, self.learner.inducing
        assert inducing is not None
        machine, noise, notes = self._machine(problem), learner.noise, []
        rng = np.random.default_rng([order, 1])
        if learner.likelihood == "categorical":
            noise = None
        elif noise is None:
            noise = self._noise(problem, rng)
            chose = CHOSE[learner.criterion]
            notes.append(f"{chose} a noise variance of {noise:.3g} for the NNGP.")
        bound = Bound(
            machine, noise, len(problem.x_train), inducing.regularisation, inducing.quadratic
        )
        with float64():
            first = first_points(machine, problem.x_train, rng)
            layers = drawn(machine, first, rng)
            begin = start(layers, last_points(machine), problem.y_train.shape[1])
        return _Prepared(self, problem, bound, begin, order, tuple(notes))

    def _noise(self, problem: Problem, rng: np.random.Generator) -> float:
        count = min(CHOOSING, len(problem.x_train))
        rows = np.sort(rng.permutation(len(problem.x_train))[:count])
        prior = as_drawn(self.scaling)
        kernel = shared_kernels(self.network, problem.x_train[rows], scaling=prior).nngp
        return float(best_noise(kernel, problem.y_train[rows], self.learner.criterion)[0])


def last_points(machine: Machine) -> int:
    """How many inducing variables the readout has."""
    return sites_of(machine)[-1].points


def first_points(
    machine: Machine, x: Float[np.ndarray, "n d"], rng: np.random.Generator
) -> Float[np.ndarray, "m f"]:
    """Rows, or patches of rows, far from each other: by the draws that k-means starts from.

    Raises EmptyCell where there are fewer different ones than inducing points are asked for.
    """
    first = next(site for site in sites_of(machine) if site is not None)
    rows = rng.permutation(len(x))[: min(len(x), max(CANDIDATES // 100, first.points))]
    if machine.vectors:
        rows = rng.permutation(len(x))[:CANDIDATES]
    read = nearby(machine, x, rows)
    read = np.unique(read, axis=0)
    if len(read) < first.points:
        raise EmptyCell(
            f"Inducing asks for {first.points} points and {len(read)} different inputs of "
            f"{first.name} are there: give fewer points."
        )
    read = read[rng.permutation(len(read))[:CANDIDATES]]
    seed = int(rng.integers(2**31))
    return sklearn.cluster.kmeans_plusplus(read, first.points, random_state=seed)[0]


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: InducingMachine
    problem: Problem
    bound: Bound
    begin: Fitted
    order: int
    notes: tuple[str, ...]

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Bayes starts from no function, so `start` changes nothing."""
        problem, inducing = self.problem, self.limit.learner.inducing
        assert inducing is not None
        x, y = problem.x_train, problem.y_train
        name = f"{self.limit!r} {self.order} {digest(x)} {digest(y)}"
        targets = labels_of(y) if self.bound.noise is None else y
        # XLA has threads of its own, and LAPACK's would wait for them
        with float64(), threadpool_limits(1, "blas"):
            check_start(self.bound, self.begin, x)
            course = fit(self.bound, self.begin, x, targets, inducing, self.order, work, name)
        states = [
            InducingState(self.bound, fitted, bounds)
            for fitted, bounds in ((self.begin, ()), (course.fitted, course.bounds))
        ]
        return Trained(states[1], self._trajectory(states), (*self.notes, *self._told(course)))

    def _trajectory(self, states: list[InducingState]) -> Trajectory:
        """From the prior, where all rows have one mean, to what was trained."""
        problem = self.problem
        after = [states[1].predict(x, False).value for x in (problem.x_train, problem.x_test)]
        train, test = (
            np.array([loss_value(f, y, "mse") for f in (np.zeros_like(found), found)])
            for found, y in zip(after, (problem.y_train, problem.y_test), strict=True)
        )
        steps, kernels = np.array([0.0, float(len(states[1].bounds))]), {}
        if self.bound.machine.vectors:
            features = [state.features(problem.probes) for state in states]
            names = layer_names(self.limit.network)
            kernels = {name: np.stack([one[i] for one in features]) for i, name in names}
        predictions = np.stack([np.zeros_like(after[1]), after[1]])
        return Trajectory(steps, train, test, predictions, kernels)

    def _told(self, course: Course) -> list[str]:
        with float64():
            fitted = jax.tree.map(jnp.asarray, course.fitted)
            apart = [float(far) for _, far in divergences(self.bound, fitted)]
        first, last = course.bounds[0], course.bounds[-1]
        notes = [
            f"{course.epoch} epochs of Adam brought the bound, as estimated in mini-batches, from "
            f"{first:.6g} in the first epoch to {last:.6g} in the last."
        ]
        if apart:
            said = ", ".join(f"{far:.3g}" for far in apart)
            notes.append(f"KL divergence of each hidden layer from its prior: {said}.")
        if self.bound.noise is None:
            notes.append(
                f"Chances are means over {PREDICTING:,} draws of the outputs, and over {TRAINING} "
                "in training."
            )
        return [*notes, f"Covariances of inducing points have a jitter of {JITTER:g}."]
