"""The pi-limit as a limit: found in the table, trained, saved, asked for predictions."""

import dataclasses
import functools
import time
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.learner import AbstractLearner, GradientDescent
from widthwise.limits.base import UNKEPT, AbstractLimit, AbstractPrepared, Start, Trained, Work
from widthwise.limits.descent import loss_slope
from widthwise.limits.pi import build, compress, engine, rows
from widthwise.limits.pi.predict import PiState, kernels_of, outputs_of
from widthwise.memory import check_free
from widthwise.network.layer import AbstractLayer
from widthwise.network.projected import projected_start
from widthwise.network.stack import NoStack, stack_of
from widthwise.problem import Problem, batches, check_growth, logged_steps, loss_value
from widthwise.run import Trajectory
from widthwise.scaling import AbstractScaling
from widthwise.solve import float64

SECONDS = 60.0  # between two checkpoints


class PiLimit(AbstractLimit):
    """Deep networks whose hidden gradients are projected onto r directions, at infinite width.

    >>> learner = GradientDescent(lr=0.5, steps=10, projection=16)
    >>> PiLimit(Dense() >> Relu() >> Readout(), MuP(), learner).regime
    'rich'

    Exact in float64 while rows are not bounded: one row a sample and layer. With
    `Projection(rows=...)` a layer that has three times as many is replaced by the nearest operator
    on `rows` of them, and the run's notes tell the errors. ReLU fast, other nonlinearities
    through their duals.
    """

    source: ClassVar[str] = (
        "yang2022pi, sections 3 and 4; williams2001, section 2; chen2025, section 2"
    )
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (GradientDescent,)
    follows_start: ClassVar[bool] = False
    network: AbstractLayer
    scaling: AbstractScaling
    learner: GradientDescent

    def refusal(self) -> str | None:
        if self.learner.projection is None:
            return (
                "PiLimit needs projected gradients: give GradientDescent(projection=400), a number "
                "of directions, which holds at every width."
            )
        if self.learner.ridge:
            return "PiLimit has no pull towards the initial weights: use weight_decay, not ridge."
        try:
            stack_of(self.network)
        except NoStack as error:
            return f"PiLimit is known for plain stacks of layers: {error}"
        return None

    def check(self, problem: Problem) -> None:
        """Raises MemoryError for more rows than fit, before any are made."""
        remedy = "bound them, as in Projection(400, rows=5000)"
        check_free(self.bytes_needed(problem), "The pi-limit's rows", remedy)

    def bytes_needed(self, problem: Problem) -> int:
        """Of the state at its largest."""
        batch = min(self.learner.batch_size or len(problem.x_train), len(problem.x_train))
        projection = self.learner.projection
        assert projection is not None
        each = build.bytes_a_row(self.network, projection, problem.y_train.shape[1])
        largest = projection.rank + batch * self.learner.steps
        keep = self.rows_kept(problem)
        if keep is not None and projection.tolerance is None:
            largest = min(largest, compress.GROWTH * keep + batch)
        return int(1.5 * each * largest)

    def rows_kept(self, problem: Problem) -> int | None:
        """The budget of rows a layer; None where nothing bounds them."""
        projection = self.learner.projection
        assert projection is not None
        return build.rows_kept(self.network, projection, problem.y_train.shape[1])

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Draws the initial weights, which are the same at every width."""
        self.check(problem)
        return _Prepared(self, problem, order, logs)


class _Done(NamedTuple):
    """What a training has done so far, in plain arrays: a checkpoint."""

    step: int
    state: Any
    logs: tuple
    compressions: tuple
    keep: int | None


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: PiLimit
    problem: Problem
    order: int
    logs: int

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Every initial function leads to the same limit: `start` is not read."""
        projection = self.limit.learner.projection
        assert projection is not None
        if projection.storage == "float64":
            with float64():
                return _Training(self, work, "float64").run()
        return _Training(self, work, "float32").run()


class _Training:
    """The loop over steps: it logs, compresses, and writes what it has done."""

    def __init__(self, prepared: _Prepared, work: Work, dtype: str):
        self.limit, self.problem, self.work = prepared.limit, prepared.problem, work
        self.learner, self.order, self.dtype = self.limit.learner, prepared.order, dtype
        self.rules = build.rules_of(
            self.limit.network, self.limit.scaling, self.learner, self.problem.x_train.shape[1]
        )
        self.times = logged_steps(self.learner.steps, prepared.logs)
        self.batches = batches(
            len(self.problem.x_train), self.learner.steps, self.learner.batch_size, self.order
        )
        self.factors = self.learner.schedule.factors(self.learner.steps)
        done = self._resumed() or self._begun()
        self.step, self.log, self.compressions = done.step, list(done.logs), list(done.compressions)
        self.state, self.keep = build.awake(done.state), done.keep
        self.written = time.monotonic()

    def run(self) -> Trained:
        if not self.log:
            self._write_log()
        while self.step < self.learner.steps:
            self._one_step()
            if self.step in self.times:
                self._write_log()
            self.work.advance(1 / self.learner.steps)
            if time.monotonic() - self.written > SECONDS:
                self._keep()
        self._keep()  # so that a training interrupted later need not repeat this one
        state = PiState(self.limit.network, self.rules, build.asleep(self.state), self.dtype)
        return Trained(state, self._trajectory(), self._notes())

    def _begun(self) -> _Done:
        network, scaling = self.limit.network, self.limit.scaling
        projection = self.learner.projection
        assert projection is not None
        drawn = projected_start(
            network, scaling, projection.rank, self.problem.x_train,
            self.problem.y_train.shape[1], self.order,
        )  # fmt: skip
        state = build.state_of_start(self.rules, drawn, projection.storage, self.dtype)
        return _Done(0, build.asleep(state), (), (), self.limit.rows_kept(self.problem))

    def _one_step(self) -> None:
        problem, learner = self.problem, self.learner
        assert learner.lr is not None
        own = slice(None) if self.batches is None else self.batches[self.step]
        x, y = (jnp.asarray(part[own], self.dtype) for part in (problem.x_train, problem.y_train))
        carried = engine.forward(self.rules, self.state, x)
        slope = _slope(carried.g[-1], y, learner.loss)
        gradient = engine.backward(self.rules, self.state, carried, slope)
        factor = float(self.factors[self.step])
        if learner.clip is not None:
            gradient, _ = engine.clipped(self.rules, gradient, learner.clip * factor)
        self.state = engine.step(self.rules, self.state, gradient, learner.lr * factor)
        self.step += 1
        if self.keep is not None:
            self._compress(learner.lr * factor)

    def _compress(self, lr: float) -> None:
        assert self.keep is not None
        if rows.count(self.state.operators[-1]) < compress.GROWTH * self.keep:
            return
        momentum, projection = self.learner.momentum, self.learner.projection
        assert projection is not None
        while True:
            found = [
                compress.compress(
                    pairs, operator, self.keep, [self.order, self.step, number],
                    lr * rule.rate * momentum / (1 - momentum),
                )
                for number, (pairs, operator, rule) in enumerate(
                    zip(self.rules.pairs, self.state.operators, self.rules.layers[1:], strict=True)
                )
            ]  # fmt: skip
            errors = [info.error for _, info in found]
            if projection.tolerance is None or max(errors) <= projection.tolerance:
                break
            self.keep = int(1.5 * self.keep)
            if self.keep > 0.8 * rows.count(self.state.operators[-1]):
                return  # little would be dropped: wait until there are more
        self.state = self.state._replace(operators=tuple(operator for operator, _ in found))
        self.compressions.append((self.step, *errors))

    def _write_log(self) -> None:
        problem, loss = self.problem, self.learner.loss
        train, test = (
            outputs_of(self.rules, self.state, x, self.dtype)
            for x in (problem.x_train, problem.x_test)
        )
        lost = loss_value(train, problem.y_train, loss)
        first = self.log[0][1] if self.log else lost
        check_growth("Training at infinite width", self.step, lost, first)
        there = loss_value(test, problem.y_test, loss)
        kernels = kernels_of(self.limit.network, self.rules, self.state, problem.probes, self.dtype)
        self.log.append((self.step, lost, there, test, kernels))

    def _trajectory(self) -> Trajectory:
        steps, train, test, predictions, kernels = zip(*self.log, strict=True)
        return Trajectory(
            np.array(steps, float), np.array(train), np.array(test), np.stack(predictions),
            {name: np.stack([k[name] for k in kernels]) for name in kernels[0]},
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        count = rows.count(self.state.operators[-1])
        projection = self.learner.projection
        assert projection is not None
        told = f"Gradients are projected onto {projection.rank} directions a layer"
        if not self.compressions:
            return (f"{told}; {count} rows a layer, none dropped.",)
        errors = np.array([errors for _, *errors in self.compressions])
        return (
            f"{told}; rows were projected onto {self.keep} a layer {len(errors)} times, with a "
            f"relative error of the layers' operators of {errors.max():.1%} at most and "
            f"{errors[-1].max():.1%} the last time.",
        )

    def _name(self) -> str:
        return repr((self.limit, self.order, self.times))

    def _keep(self) -> None:
        if self.work.checkpoint is not None:
            done = _Done(
                self.step, build.asleep(self.state), tuple(self.log), tuple(self.compressions),
                self.keep,
            )  # fmt: skip
            self.work.keep(self._name(), done)
        self.written = time.monotonic()

    def _resumed(self) -> _Done | None:
        done = self.work.kept(self._name())
        if done is not None:
            self.work.advance(done.step / self.learner.steps)
        return done


@functools.partial(jax.jit, static_argnums=2)
def _slope(out, y, loss):
    """The slope of the batch's mean loss in the outputs."""
    return loss_slope(out, y, loss) / len(out)
