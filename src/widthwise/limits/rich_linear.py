"""The rich limit of a network with one hidden linear layer: exact, in a few dimensions."""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.learner import AbstractLearner, GradientDescent
from widthwise.limits.base import (
    FORGOTTEN,
    UNKEPT,
    AbstractLimit,
    AbstractPrepared,
    EmptyCell,
    Start,
    Trained,
    Work,
)
from widthwise.limits.descent import loss_slope
from widthwise.network.build import slot_of, specify
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Chain
from widthwise.network.names import layer_names
from widthwise.problem import Problem, batches, check_growth, logged_steps, loss_value
from widthwise.run import AbstractState, Prediction, Trajectory, check_columns
from widthwise.scaling import AbstractScaling, Power


class LinearWeights(NamedTuple):
    """The network in coordinates along its initial vectors, r inputs and q = r + k or r + k + 1.

    f(x) = readout (hidden x + hidden_bias) + readout_bias for inputs x in the span of the training
    rows; across that span, `across` times the input is what remains of the hidden layer.
    """

    hidden: Float[np.ndarray, "q r"]
    hidden_bias: Float[np.ndarray, " q"]
    readout: Float[np.ndarray, "k q"]
    readout_bias: Float[np.ndarray, " k"]
    across: Float[np.ndarray, ""]

    def features(self, x: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n q"]:
        return x @ self.hidden.T + self.hidden_bias

    def outputs(self, x: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n k"]:
        return self.features(x) @ self.readout.T + self.readout_bias

    def gradient(
        self, x: Float[np.ndarray, "b r"], slope: Float[np.ndarray, "b k"]
    ) -> "LinearWeights":
        """The sum over rows of their slopes' gradients."""
        back = slope @ self.readout
        return LinearWeights(
            back.T @ x, back.sum(axis=0), slope.T @ self.features(x), slope.sum(axis=0),
            np.zeros(()),
        )  # fmt: skip


class Constants(NamedTuple):
    """What network and scaling leave at infinite width: of weight, bias, readout, its bias."""

    start: tuple[float, float, float]  # sizes of the initial vectors; the last bias starts at zero
    units: tuple[float, float, float, float]  # bring a gradient into the weights' coordinates
    rates: tuple[float, float, float, float]  # the scaling's and the layers' factors on a step


class RichLinear(AbstractLimit):
    """f = V (U x + b) + c, trained in the span of its initial vectors: d + k dimensions suffice.

    >>> limit = RichLinear(Dense() >> Readout(), MuP(), GradientDescent(lr=0.1, steps=5))
    >>> limit.refusal()

    Columns of U, b and rows of V start as independent Gaussian vectors, orthogonal at infinite
    width, and every step moves them within their span. So the limit is a network of width d + k,
    one more if the bias starts random, whose initial weights are diagonal. Exact for both losses,
    mini-batches, momentum, decay, ridge and schedules, in float64. With fewer rows than inputs,
    d is the rank of the training rows.
    """

    source: ClassVar[str] = "yang2021feature, section 6 and Theorem 6.1"
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (GradientDescent,)
    follows_start: ClassVar[bool] = False
    network: AbstractLayer
    scaling: AbstractScaling
    learner: GradientDescent

    def refusal(self) -> str | None:
        if not _is_linear(self.network):
            return (
                f"RichLinear is exact for one hidden linear layer and the network is "
                f"{self.network!r}: use Dense() >> Readout()."
            )
        if self.network.layers[-1].bias_variance:  # type: ignore[attr-defined]
            return (
                "Readout(bias_variance=...) leaves a random constant in the function at infinite "
                "width, so RichLinear has no single limit: set it to 0."
            )
        if self.scaling.classify(1).regime != "feature learning":
            return f"{self.scaling!r} is not rich: use MuP(), or TangentKernel for its limit."
        if self.learner.projection is not None:
            return "RichLinear has no projected gradients: leave projection out."
        return None

    def check(self, problem: Problem) -> None:
        if (sentence := self.refusal()) is not None:
            raise EmptyCell(sentence)

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """The inputs in the span of the training rows, and the network's constants."""
        self.check(problem)
        rows, d = problem.x_train.shape
        basis = np.linalg.qr(problem.x_train.T)[0] if rows < d else np.eye(d)
        found = constants(self.network, self.scaling, d, problem.y_train.shape[1])
        return _Prepared(self, problem, basis, found, order, logs)


def _is_linear(network: AbstractLayer) -> bool:
    layers = network.layers if isinstance(network, Chain) else ()
    return len(layers) == 2 and isinstance(layers[0], Dense) and isinstance(layers[1], Readout)


def constants(
    network: AbstractLayer, scaling: AbstractScaling, n_inputs: int, n_outputs: int
) -> Constants:
    """Sizes and step sizes of a network `Dense() >> Readout()` at infinite width.

    >>> constants(Dense(weight_variance=4.0) >> Readout(weight_variance=0.25), MuP(), 4, 1).start
    (1.0, 0.0, 0.5)

    A vector of N hidden entries of size s is sqrt(N) s long. Coordinates of U and b are taken in
    units of sqrt(N), those of V in units of 1 / sqrt(N): both then stay of order one.
    """
    hidden, readout = specify(network, n_inputs, n_outputs)
    weights = (hidden.weight, hidden.bias, readout.weight, readout.bias)
    slots = [slot_of(weight, scaling) for weight in weights]
    count, one = Power(float(hidden.weight.fan_out.times), 1.0), Power(1.0)
    share = Power(1.0 / count.coefficient, -1.0)
    sizes = [
        float((slot.multiplier * slot.std * unit).at(np.inf))
        for slot, unit in zip(slots, (one, one, count, one), strict=True)
    ]
    units = [
        float((s.multiplier * s.multiplier * Power(1.0, s.rate.exponent) * unit).at(np.inf))
        for s, unit in zip(slots, (share, share, count, one), strict=True)
    ]
    rates = [float(slot.rate.coefficient) for slot in slots]
    return Constants(tuple(sizes[:3]), tuple(units), tuple(rates))  # type: ignore[arg-type]


def initial_weights(start: tuple[float, float, float], r: int, k: int) -> LinearWeights:
    """Diagonal: each initial vector is an axis.

    >>> initial_weights((1.0, 0.0, 0.5), 1, 1).readout.tolist()
    [[0.0, 0.5]]
    """
    hidden, bias, readout = start
    size = r + k + (bias > 0)
    along = np.zeros(size)
    along[r + k :] = bias
    return LinearWeights(
        hidden * np.eye(size, r), along, readout * np.eye(k, size, r), np.zeros(k),
        np.array(hidden),
    )  # fmt: skip


class Moving(NamedTuple):
    """Weights and the velocity that momentum gives them."""

    weights: LinearWeights
    velocity: LinearWeights


def advance(
    moving: Moving,
    gradient: LinearWeights,
    first: LinearWeights,
    constants: Constants,
    learner: GradientDescent,
    factor: float,
    rows: int,
) -> Moving:
    """One step, as `finite.optimiser` takes it: ridge before momentum, decay after it. `factor` is
    the schedule's, on step size and bound."""
    assert learner.lr is not None
    lr = factor * learner.lr
    units, rates = (*constants.units, 0.0), (*constants.rates, constants.rates[0])
    scales = _clipping(gradient, units, learner, factor)
    weights, velocity = [], []
    for w, v, g, w0, unit, rate, scale in zip(
        *moving, gradient, first, units, rates, scales, strict=True
    ):
        pulled = (learner.ridge / rows) * (w - w0) if rate else 0.0  # layers at rest stay
        shrunk = learner.weight_decay * w if rate else 0.0
        v = learner.momentum * v + rate * unit * scale * g + pulled
        velocity.append(v)
        weights.append(w - lr * (v + shrunk))
    return Moving(LinearWeights(*weights), LinearWeights(*velocity))


def _clipping(
    gradient: LinearWeights, units: tuple[float, ...], learner: GradientDescent, factor: float
) -> tuple[float, ...]:
    """What brings the norms of tensors, or of all together, under the bound of this step."""
    if learner.clip is None:
        return (1.0,) * len(units)
    squared = [unit * float(np.vdot(g, g)) for g, unit in zip(gradient, units, strict=True)]
    if learner.clip_by == "global":
        squared = [sum(squared)] * len(units)
    bound = factor * learner.clip
    return tuple(min(1.0, bound / norm) if norm > 0 else 1.0 for norm in np.sqrt(squared))


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: RichLinear
    problem: Problem
    basis: Float[np.ndarray, "d r"]
    constants: Constants
    order: int
    logs: int

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        learner, problem, basis = self.limit.learner, self.problem, self.basis
        x, y, count = problem.x_train @ basis, problem.y_train, len(problem.x_train)
        order = batches(count, learner.steps, learner.batch_size, self.order)
        factors = learner.schedule.factors(learner.steps)
        first = initial_weights(self.constants.start, x.shape[1], y.shape[1])
        moving = Moving(first, LinearWeights(*(np.zeros_like(w) for w in first)))
        log = _Log(self.limit, problem, basis)
        log.write(0, first)
        times = logged_steps(learner.steps, self.logs)
        for before, now in zip(times[:-1], times[1:], strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                for step in range(before, now):
                    rows = slice(None) if order is None else order[step]
                    seen, targets = x[rows], y[rows]
                    slope = loss_slope(moving.weights.outputs(seen), targets, learner.loss)
                    gradient = moving.weights.gradient(seen, slope / len(seen))
                    factor = float(factors[step])
                    moving = advance(
                        moving, gradient, first, self.constants, learner, factor, count
                    )
            log.write(now, moving.weights)
            work.advance((now - before) / learner.steps)
        return Trained(RichLinearState(moving.weights, basis), log.trajectory())


class _Log:
    """Collects what a trajectory holds."""

    def __init__(self, limit: RichLinear, problem: Problem, basis: Float[np.ndarray, "d r"]):
        self._limit, self._problem = limit, problem
        self._parts = [x @ basis for x in (problem.x_train, problem.x_test, problem.probes)]
        outside = problem.probes - self._parts[2] @ basis.T
        self._outside = outside @ outside.T
        self._rows: list[tuple] = []
        self._kernels: list[np.ndarray] = []

    def write(self, step: int, weights: LinearWeights) -> None:
        problem, loss = self._problem, self._limit.learner.loss
        train, test, probes = self._parts
        with np.errstate(over="ignore", invalid="ignore"):
            lost = float(loss_value(weights.outputs(train), problem.y_train, loss))
        first = self._rows[0][1] if self._rows else lost
        check_growth("Training at infinite width", step, lost, first)
        out = weights.outputs(test)
        test_loss = loss_value(out, problem.y_test, loss)
        self._rows.append((float(step), lost, test_loss, out))
        seen = weights.features(probes)
        self._kernels.append(seen @ seen.T + weights.across**2 * self._outside)

    def trajectory(self) -> Trajectory:
        steps, train_loss, test_loss, out = (np.asarray(x) for x in zip(*self._rows, strict=True))
        ((_, name),) = layer_names(self._limit.network)
        return Trajectory(steps, train_loss, test_loss, out, {name: np.stack(self._kernels)})


@dataclasses.dataclass(frozen=True)
class RichLinearState(AbstractState):
    """The trained network; inputs are first brought into the span of the training rows."""

    weights: LinearWeights
    basis: Float[np.ndarray, "d r"]

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        check_columns(x, len(self.basis))
        zero = np.zeros((len(x), len(x))) if covariance else None
        return Prediction(self.weights.outputs(x @ self.basis), zero, FORGOTTEN)
