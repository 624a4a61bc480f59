"""Training of finite networks: one compiled loop between two logged steps, in float32."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PyTree

from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.linearised import AnyNetwork
from widthwise.finite.optimiser import optimiser
from widthwise.finite.projected import draw_directions, initial_parameters
from widthwise.learner import AbstractLearner, LossName
from widthwise.network.projected import projected_start
from widthwise.problem import Problem, batches, check_growth, logged_steps, loss_value
from widthwise.run import AbstractState, Prediction, Trajectory
from widthwise.solve import float64

ROWS = 4096  # rows a forward pass holds at once


class NetworkState(AbstractState, eqx.Module):
    """A trained finite network."""

    net: AnyNetwork
    parameters: PyTree

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        # In float64: in float32 a row's last digits depend on how many rows stand beside it.
        with float64():
            wide = jax.tree.map(lambda w: np.asarray(w, np.float64), self.parameters)
            value = outputs(self.net, wide, x)
        return Prediction(value, None, "one draw of initial weights")

    def feature_kernel(
        self,
        x1: Float[np.ndarray, "n d"],
        x2: Float[np.ndarray, "m d"] | None = None,
        *,
        normalized: bool = False,
    ) -> Float[np.ndarray, "n m"]:
        """The kernel of the last hidden layer's features, their mean product over neurons;
        `normalized` for features of length one."""
        both = x1 if x2 is None else np.concatenate([x1, x2])
        with float64():
            wide = jax.tree.map(lambda w: np.asarray(w, np.float64), self.parameters)
            h = np.asarray(list(self.net.features(wide, jnp.asarray(both)).values())[-1])
        if normalized:
            h = np.sqrt(h.shape[1]) * h / np.linalg.norm(h, axis=1, keepdims=True)
        found = h @ h.T / h.shape[1]
        return found if x2 is None else found[: len(x1), len(x1) :]


def outputs(net: AnyNetwork, parameters: PyTree, x) -> Float[np.ndarray, "m k"]:
    """The network's outputs at any number of rows."""
    x = np.asarray(x)
    if x.shape[1] != net.n_inputs:
        raise ValueError(f"x has {x.shape[1]} columns and training had {net.n_inputs}.")
    dtype = jax.tree.leaves(parameters)[0].dtype
    tiles = [
        np.asarray(_forward(net, parameters, jnp.asarray(x[i : i + ROWS], dtype)))
        for i in range(0, max(len(x), 1), ROWS)
    ]
    return np.concatenate(tiles)


@functools.partial(jax.jit, static_argnums=0)
def _forward(net, parameters, x):
    return net.apply(parameters, x)


@functools.partial(jax.jit, static_argnums=0)
def _kernels(net, parameters, x):
    found = net.features(parameters, x)
    return {name: h @ h.T / h.shape[1] for name, h in found.items()}


def sample_loss(out, target, loss: LossName):
    """A row's loss, as a JAX function."""
    if loss == "mse":
        return 0.5 * jnp.sum((out - target) ** 2)
    return optax.safe_softmax_cross_entropy(out, target)


class _Spec(eqx.Module):
    """What a compiled loop depends on."""

    net: AnyNetwork
    learner: AbstractLearner
    rows: int

    def optimiser(self, lr, factor=1.0, directions=None) -> optax.GradientTransformation:
        return optimiser(self.net, self.learner, lr, self.rows, factor, directions)


def train(
    net: AnyNetwork,
    problem: Problem,
    learner: AbstractLearner,
    *,
    lr: float,
    seed: int,
    order: int = 0,
    logs: int = 16,
    advance: Callable[[int], None] | None = None,
    dtype: str = "float32",
) -> tuple[NetworkState, Trajectory]:
    """Trains one draw of the network.

    Args:
        net: the network at its width, under its scaling; linearised, its features stay.
        problem: rows and coded targets.
        learner: `GradientDescent` or `Adam`.
        lr: step size in width-free coordinates.
        seed: seeds the initial weights.
        order: seeds the batches, which all members share.
        logs: number of logged times.
        advance: called with the number of steps done since the last call.
        dtype: "float32", or "float64" under `widthwise.solve.float64`.

    Raises `Diverged` when losses stop being finite.
    """
    settings = eqx.tree_at(lambda known: (known.lr, known.steps), learner, (None, 1), is_leaf=_none)
    spec = _Spec(net, settings, len(problem.x_train))  # one compilation for any lr and steps
    parameters, directions = _start(net, problem, learner, seed, order, dtype)
    state = spec.optimiser(lr, directions=directions).init(parameters)
    x, y = (jnp.asarray(part, dtype) for part in (problem.x_train, problem.y_train))
    steps = learner.steps  # type: ignore[attr-defined]
    batch_size = learner.batch_size  # type: ignore[attr-defined]
    rows = batches(len(problem.x_train), steps, batch_size, order)
    rows = None if rows is None else jnp.asarray(rows)
    schedule = learner.schedule  # type: ignore[attr-defined]
    factors = jnp.asarray(schedule.factors(steps), dtype)
    log = _Log(net, problem, learner.loss)  # type: ignore[attr-defined]
    log.write(0, parameters)
    times = logged_steps(steps, logs)
    for before, now in zip(times[:-1], times[1:], strict=True):
        parameters, state = _advance(
            spec, jnp.asarray(lr, dtype), before, now, parameters, state, x, y, rows, factors
        )
        log.write(now, parameters)
        if advance is not None:
            advance(now - before)
    return NetworkState(net, jax.tree.map(np.asarray, parameters)), log.trajectory()


def _start(net: AnyNetwork, problem: Problem, learner, seed: int, order: int, dtype: str):
    """(initial parameters, the directions that gradients are projected onto or None)."""
    projection = getattr(learner, "projection", None)
    if projection is None:
        return net.draw(initial_key(seed), dtype), None
    assert isinstance(net, FiniteNetwork)  # projections are of features that move
    start = projected_start(
        net.network, net.scaling, projection.rank, problem.x_train, net.n_outputs, order
    )
    directions = draw_directions(net, projection.rank, initial_key(seed), dtype)
    return initial_parameters(net, start, directions, dtype), directions


def _none(node) -> bool:
    return node is None


def initial_key(seed: int) -> Any:
    """The key of the initial weights: one a seed, the same at every width."""
    return jax.random.fold_in(jax.random.key(seed), 1)


@dataclasses.dataclass(frozen=True)
class InitialFunction:
    """What a finite network computes before training."""

    net: FiniteNetwork
    seed: int

    def __call__(self, x) -> np.ndarray:
        drawn = self.net.draw(initial_key(self.seed))
        return outputs(self.net, drawn, x).astype(np.float64)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(4, 5))
def _advance(spec: _Spec, lr, before, now, parameters, state, x, y, rows, factors):
    """Steps `before` to `now`, which are traced: every stretch of a run is one compilation."""
    loss: LossName = spec.learner.loss  # type: ignore[attr-defined]

    def objective(parameters, x, y):
        out = spec.net.apply(parameters, x)
        return jnp.mean(jax.vmap(lambda o, t: sample_loss(o, t, loss))(out, y))

    def step(number, carry):
        parameters, state = carry
        inputs, targets = (x, y) if rows is None else (x[rows[number]], y[rows[number]])
        gradient = jax.grad(objective)(parameters, inputs, targets)
        updates, state = spec.optimiser(lr, factors[number]).update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state

    return jax.lax.fori_loop(before, now, step, (parameters, state))


class _Log:
    """Collects what a trajectory holds."""

    def __init__(self, net: AnyNetwork, problem: Problem, loss: LossName):
        self.net, self.problem = net, problem
        self.loss: LossName = loss
        self.rows: list[tuple] = []
        self.kernels: list[dict] = []

    def write(self, step: int, parameters) -> None:
        out_train = outputs(self.net, parameters, self.problem.x_train)
        train_loss = loss_value(out_train, self.problem.y_train, self.loss)
        first = self.rows[0][1] if self.rows else train_loss
        check_growth(f"Training at width {self.net.width}", step, train_loss, first)
        out_test = outputs(self.net, parameters, self.problem.x_test)
        test_loss = loss_value(out_test, self.problem.y_test, self.loss)
        self.rows.append((step, train_loss, test_loss, out_test))
        dtype = jax.tree.leaves(parameters)[0].dtype
        found = _kernels(self.net, parameters, jnp.asarray(self.problem.probes, dtype))
        self.kernels.append({name: np.asarray(kernel) for name, kernel in found.items()})

    def trajectory(self) -> Trajectory:
        steps, train_loss, test_loss, out = (np.asarray(c) for c in zip(*self.rows, strict=True))
        names = self.kernels[0]
        kernels = {name: np.stack([k[name] for k in self.kernels]) for name in names}
        return Trajectory(steps.astype(float), train_loss, test_loss, out, kernels)
