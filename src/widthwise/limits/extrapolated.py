"""Width infinity from finite networks of growing width: for any architecture, with an error bar."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from widthwise import settings
from widthwise.finite import FiniteNetwork
from widthwise.finite import train as train_finite
from widthwise.finite.train import NetworkState
from widthwise.learner import AbstractLearner, Adam, GradientDescent, SignDescent, Stepwise
from widthwise.limits.base import (
    UNKEPT,
    AbstractLimit,
    AbstractPrepared,
    EmptyCell,
    Start,
    Trained,
    Work,
)
from widthwise.limits.table import regime
from widthwise.memory import check_free
from widthwise.network.begin import trial_inputs
from widthwise.network.build import is_weight, slot_of, specify
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem, logged_steps, loss_value
from widthwise.run import AbstractState, Prediction, Trajectory
from widthwise.scaling import AbstractScaling, Role

FACTORS = np.array([1, 2, 4])  # widths, in units of the smallest
LEVEL = 0.95  # of the interval
FIRST_SEED = 10**6  # far from the seeds of a family's members, which would be no check otherwise
WIDE = 0.2  # half an interval, in units of the targets, that is worth a word
GIVEN = "the limit, which forgets the initial weights; error(x) is half its 95 % interval"


class Extrapolated(AbstractLimit):
    """The limit of any network, extrapolated from widths n, 2n and 4n, with its 95 % interval.

    >>> limit = Extrapolated(Dense() >> Relu() >> Dense() >> Relu() >> Readout(), MuP(), Adam())
    >>> limit.widths
    (128, 256, 512)

    It is chosen by name only: `Member(network, inf, scaling, learner, limit=limit)`, and the same
    of a `Family`. Under a rich scaling predictions of width n are a + b / n in the mean over seeds,
    around which they scatter like n^-1/2. So a is found by least squares weighted by the width,
    output by output. Its variance is that of the seeds' means, found at each width by itself,
    plus that of the fit: the square of what a term 1 / n^2 would take off, less what seeds explain
    of it, its mean over training and test rows. Student's t is that of Welch's degrees of freedom.

    Args:
        network: any network, layers without a rule at infinite width among them.
        scaling, learner: a rich scaling; gradient descent, Adam or sign descent.
        width: n, the smallest of the three widths.
        seeds: networks drawn at each width, all different, all in the same order of the data.
        seed: another seed draws other networks.
    """

    source: ClassVar[str] = "yang2021feature, section 5; richardson1911, pages 307 to 357"
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (GradientDescent, Adam, SignDescent)
    follows_start: ClassVar[bool] = False
    by_name: ClassVar[bool] = True
    network: AbstractLayer
    scaling: AbstractScaling
    learner: AbstractLearner
    width: int = 128
    seeds: int = 8
    seed: int = 0

    def __check_init__(self):
        settings.whole(self, "width", low=16)
        settings.whole(self, "seeds", low=2)
        settings.whole(self, "seed", low=0)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(int(factor) * self.width for factor in FACTORS)

    def refusal(self) -> str | None:
        learner = type(self.learner).__name__
        if not isinstance(self.learner, self.learners):
            return (
                f"Extrapolated trains finite networks, and {learner} is for width=inf: use Adam()."
            )
        if regime(self.network, self.scaling, self.learner) != "rich":
            return (
                f"Under {self.scaling!r} every initial function has a limit of its own, and "
                "Extrapolated means over them: use MuP(), or leave limit out."
            )
        specs = specify(self.network, trial_inputs(self.network), None)
        fixed = [w for w in jax.tree.leaves(specs, is_leaf=is_weight) if w.role is Role.FIXED]
        if any(slot_of(weight, self.scaling).std.coefficient != 0 for weight in fixed):
            return (
                "A readout's bias that starts at random leaves a random constant in the function "
                "at infinite width: set bias_variance=0 in Readout."
            )
        return None

    def check(self, problem: Problem) -> None:
        """Raises EmptyCell for what has no single limit, MemoryError, telling the estimate, for
        weights that find no room."""
        if (sentence := self.refusal()) is not None:
            raise EmptyCell(sentence)
        sizes = [sum(_sizes(self._finite(width, problem))) for width in self.widths]
        need = 4 * (self.seeds * sum(sizes) + 4 * sizes[-1])  # all kept, one trained
        what = f"The weights of {len(FACTORS) * self.seeds} networks"
        check_free(need, what, "take a smaller width, or fewer seeds")

    def _finite(self, width: int, problem: Problem) -> FiniteNetwork:
        inputs, outputs = problem.x_train.shape[1], problem.y_train.shape[1]
        return FiniteNetwork(
            self.network, width, inputs, outputs, self.scaling, self.learner.entrywise
        )

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Makes ready the networks that training draws and trains."""
        self.check(problem)
        nets = tuple(self._finite(width, problem) for width in self.widths)
        return _Prepared(self, nets, problem, order, logs)


def _sizes(net: FiniteNetwork) -> list[int]:
    """Numbers of weights, tensor by tensor."""
    return jax.tree.leaves(net.map(lambda one: int(np.prod(one.shape))))


def intercept(degree: int) -> Float[np.ndarray, " w"]:
    """What the means of the three widths count in the constant of a polynomial in 1 / n, fitted
    with weights in proportion to n, as their variances go.

    >>> (39 * intercept(1)).round().tolist(), (3 * intercept(2)).round().tolist()
    ([-15.0, 6.0, 48.0], [1.0, -6.0, 8.0])
    """
    root = np.sqrt(FACTORS)
    powers = (1.0 / FACTORS)[:, None] ** np.arange(degree + 1)
    return np.linalg.pinv(root[:, None] * powers)[0] * root


class Estimate(NamedTuple):
    """What the networks of three widths say of the limit."""

    value: Float[np.ndarray, "*s"]
    variance: Float[np.ndarray, "*s"]  # that of seeds alone
    freedom: Float[np.ndarray, "*s"]  # degrees of freedom of the variance
    bend: Float[np.ndarray, "*s"]  # what a term 1 / n^2 takes off the value
    bend_variance: Float[np.ndarray, "*s"]

    @property
    def misfit(self) -> float:
        """The fit's share of the variance over that of seeds, for all entries together."""
        spread = float(np.mean(self.variance))
        left = float(np.mean(self.bend**2 - self.bend_variance))
        return max(0.0, left / spread) if spread > 0 else 0.0

    def error(self, misfit: float) -> Float[np.ndarray, "*s"]:
        """Half of each entry's interval."""
        times = student.ppf(0.5 + LEVEL / 2, self.freedom)
        return times * np.sqrt((1.0 + misfit) * self.variance)


def estimate(found: Float[np.ndarray, "w seeds *s"]) -> Estimate:
    """The limit of what was found at widths n, 2n and 4n, several seeds each.

    >>> found = np.array([[1.5, 1.7], [1.3, 1.3], [1.2, 1.1]])  # 1 + 0.6 / n, roughly
    >>> round(float(estimate(found).value), 2)
    1.0
    """
    seeds = found.shape[1]
    mean, variance = found.mean(axis=1), found.var(axis=1, ddof=1) / seeds
    line, parabola = intercept(1), intercept(2)
    parts = np.tensordot(np.diag(line**2), variance, 1)
    total = parts.sum(axis=0)
    squares = (parts**2).sum(axis=0)
    freedom = np.where(squares > 0, (seeds - 1) * total**2 / np.where(squares > 0, squares, 1), 1)
    return Estimate(
        np.tensordot(line, mean, 1),
        total,
        freedom,
        np.tensordot(line - parabola, mean, 1),
        np.tensordot((line - parabola) ** 2, variance, 1),
    )


Done = list[tuple[NetworkState, Trajectory]]


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: Extrapolated
    nets: tuple[FiniteNetwork, ...]
    problem: Problem
    order: int
    logs: int

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Every initial function leads to the same limit: `start` is not read.

        Raises `Diverged` where one of the networks does.
        """
        done = self._resumed(work)
        for number in range(len(done), len(FACTORS) * self.limit.seeds):
            done.append(self._member(number, work))
            work.keep(self._name(), done)
        return self._trained(done)

    @property
    def _learner(self) -> Stepwise:
        assert isinstance(self.limit.learner, Stepwise)  # others are refused
        return self.limit.learner

    @functools.cached_property
    def _logging(self) -> Problem:
        """The problem with training rows behind the test rows, so that all predictions are kept."""
        x, y = (
            np.concatenate(parts) for parts in zip(self.problem[2:4], self.problem[:2], strict=True)
        )
        return self.problem._replace(x_test=x, y_test=y)

    @functools.cached_property
    def _shares(self) -> tuple[float, ...]:
        """Of the work: that of a network of each width."""
        costs = np.array([net.width**2 + 64.0 * net.width for net in self.nets])
        return tuple(costs / costs.sum() / self.limit.seeds)

    def _member(self, number: int, work: Work) -> tuple[NetworkState, Trajectory]:
        """The network of this number, counted width by width."""
        limit, net, learner = self.limit, self.nets[number // self.limit.seeds], self._learner
        share = self._shares[number // limit.seeds] / learner.steps
        assert learner.lr is not None
        return train_finite(
            net, self._logging, learner, lr=learner.lr,
            seed=FIRST_SEED + limit.seed * len(FACTORS) * limit.seeds + number,
            order=self.order, logs=self.logs, advance=lambda steps: work.advance(steps * share),
        )  # fmt: skip

    def _trained(self, done: Done) -> Trained:
        problem, loss, seeds = self.problem, self._learner.loss, self.limit.seeds
        rows, probes = len(problem.x_test), len(problem.probes)
        logged = _by_width([one.predictions for _, one in done], seeds)
        values = estimate(logged).value
        test, train = values[:, :rows], values[:, rows:]
        lost = loss_value(train, problem.y_train, loss)
        there = loss_value(test, problem.y_test, loss)
        kernels = {
            name: estimate(
                _by_width([x.kernels[name][:, :probes, :probes] for _, x in done], seeds)
            )
            for name in done[0][1].kernels
        }
        trajectory = Trajectory(
            done[0][1].steps, lost, there, test, {name: k.value for name, k in kernels.items()}
        )
        last = estimate(logged[:, :, -1])
        states = tuple(state for state, _ in done)
        state = ExtrapolatedState(states, seeds, last.misfit)
        return Trained(state, trajectory, self._notes(last))

    def _notes(self, last: Estimate) -> tuple[str, ...]:
        error = float(np.sqrt(np.mean(last.error(last.misfit) ** 2)))
        first, second, third = self.limit.widths
        told = (
            f"Extrapolated from {self.limit.seeds} networks each at the widths {first}, {second} "
            f"and {third}: the predictions' 95 % interval is +-{error:.2g} (rms over training and "
            f"test rows), {last.misfit / (1 + last.misfit):.0%} of its square for the fit."
        )
        wide = error > WIDE * float(np.sqrt(np.mean(self.problem.y_train**2)))
        return (told, "The interval is wide: raise width or seeds.") if wide else (told,)

    def _name(self) -> str:
        return repr((self.limit, self.order, logged_steps(self._learner.steps, self.logs)))

    def _resumed(self, work: Work) -> Done:
        done = work.kept(self._name()) or []
        work.advance(sum(self._shares[i // self.limit.seeds] for i in range(len(done))))
        return done


def _by_width(found: Sequence[np.ndarray], seeds: int) -> Float[np.ndarray, "w seeds *s"]:
    whole = np.stack([np.asarray(one, np.float64) for one in found])
    return whole.reshape(len(FACTORS), seeds, *whole.shape[1:])


@dataclasses.dataclass(frozen=True)
class ExtrapolatedState(AbstractState):
    """The trained networks of all widths; new rows are extrapolated from their predictions."""

    networks: tuple[NetworkState, ...]
    seeds: int
    misfit: float  # what the fit adds to the variance of seeds, in units of that

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        return Prediction(self._estimate(x).value, None, GIVEN)

    def error(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        """Half of the 95 % interval of each prediction, in the coding of the training targets."""
        return self._estimate(x).error(self.misfit)

    def _estimate(self, x: Float[np.ndarray, "m d"]) -> Estimate:
        found = [network.predict(x, False).value for network in self.networks]
        return estimate(_by_width(found, self.seeds))
