"""The pi-limit that learns features for tasks whose readout alone adapts: MAML of second order."""

import contextlib
import dataclasses
import functools
import math
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from widthwise import settings
from widthwise.limits.pi import engine, rows
from widthwise.limits.pi.pairs import ReluPairs
from widthwise.schedule import AbstractSchedule, Cosine
from widthwise.solve import float64
from widthwise.tasks.fewshot.adapt import adapt_values
from widthwise.tasks.fewshot.base import AbstractMetaLearner, Stepped
from widthwise.tasks.fewshot.episodes import Pixels
from widthwise.tasks.fewshot.setting import FewShot

PAIRS = ReluPairs()


class Features(NamedTuple):
    """The hidden layers, and how many outer steps they took."""

    layers: engine.State
    steps: int


class TaskSlopes(NamedTuple):
    """The mean loss of tasks, and its slopes in the last hidden layer's g, one row a drawing."""

    losses: Float[Array, " t"]
    support: Float[Array, "t m r"]
    queries: Float[Array, "t p r"]


@dataclasses.dataclass(frozen=True)
class PiReadout(AbstractMetaLearner):
    """Deep ReLU networks with projected gradients at infinite width; tasks move the readout only.

    >>> PiReadout(rank=48).hidden
    2

    The readout starts each task at zero, and one step from there gives outputs -inner_lr
    V00(g(query), g(drawing)) slope, where the slope is that of the uniform guess. They are
    differentiated through both sets of drawings, which is all of second-order MAML. Every drawing
    of a meta-batch adds a row to each layer past the first, so memory grows with the steps.

    Args:
        rank: directions that gradients are projected onto.
        hidden: layers.
        meta_lr: outer step size.
        schedule: its factor over all outer steps.
        bias: factor of the hidden biases.
        first_rate, bias_rate: factors on the step size of the first layer, and of biases.
        dtype: in which rows are kept and computed.
    """

    source: ClassVar[str] = "yang2022pi, section 5; finn2017, section 2.2"
    rank: int = 400
    hidden: int = 2
    meta_lr: float = 32.0
    schedule: AbstractSchedule = Cosine()
    bias: float = math.sqrt(2.0)
    first_rate: float = 0.4
    bias_rate: float = 0.5
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self):
        settings.whole(self, "rank")
        settings.whole(self, "hidden")
        settings.number(self, "meta_lr", above=0)

    @property
    def rules(self) -> engine.Rules:
        first = engine.LayerRule(1.0, self.bias, self.first_rate, self.bias_rate)
        later = engine.LayerRule(1.0, self.bias, 1.0, self.bias_rate)
        between = self.hidden - 1
        return engine.Rules((first, *[later] * between), (PAIRS,) * between, clip_by="global")

    def initial(self, part, setting, seed, start=0):
        """Random layers, of columns and rows of length one."""
        _one_step_only(setting)
        rng, r = np.random.default_rng([seed, self.rank, start]), self.rank
        first = rng.standard_normal((part.dimension, r))
        operators = []
        with self._precision():
            for _ in range(self.hidden - 1):
                a, b = rng.standard_normal((2, r, r))
                b /= np.linalg.norm(b, axis=1, keepdims=True)
                ones = np.ones(r, self.dtype)
                operators.append(rows.operator_of(a / math.sqrt(r), b, ones, 0 * ones, self.dtype))
            biases = [jnp.zeros(r, self.dtype)] * self.hidden
            unit = jnp.asarray(first / np.linalg.norm(first, axis=0), self.dtype)
            return Features(engine.state_of(unit, operators, biases), 0)

    def step(self, state, part, episodes, setting):
        return self.stepped(state, part.pixels(episodes), setting)

    def stepped(self, state: Features, pixels: Pixels, setting: FewShot) -> Stepped:
        """An outer step on tasks whose drawings are known."""
        count, m, d = pixels.support.shape
        with self._precision():
            x = np.concatenate([pixels.support, pixels.queries], axis=1)
            x = jnp.asarray(x.reshape(-1, d), self.dtype)
            carried = engine.forward(self.rules, state.layers, x)
            g = carried.g[-1].reshape(count, -1, self.rank)
            found = _task_slopes(
                g[:, :m], g[:, m:], setting.way, setting.inner_lr,
                jnp.asarray(pixels.support_labels), jnp.asarray(pixels.query_labels),
            )  # fmt: skip
            slopes = jnp.concatenate([found.support, found.queries], axis=1)
            gradient = engine.backward(
                self.rules, state.layers, carried, slopes.reshape(-1, self.rank)
            )
            gradient, _ = engine.clipped(self.rules, gradient, setting.clip)
            total = setting.epochs * setting.batches
            rate = self.meta_lr * float(self.schedule.factors(total)[state.steps])
            moved = engine.step(self.rules, _copied(state.layers), gradient, rate)
            return Stepped(Features(moved, state.steps + 1), float(found.losses.mean()))

    def outputs(self, state, part, episodes, setting, steps):
        few = episodes.in_chunks()
        return np.concatenate([self.adapted(state, part.pixels(x), setting, steps) for x in few])

    def adapted(
        self, state: Features, pixels: Pixels, setting: FewShot, steps: int
    ) -> Float[np.ndarray, "t p k"]:
        """Outputs at queries after steps of the readout from zero."""
        with self._precision():
            support, queries = (self._features(state, x) for x in (pixels.support, pixels.queries))
            inner, cross = (
                np.asarray(_kernels(g, support), np.float64) for g in (support, queries)
            )
        zero, start = (np.zeros((*g.shape[:2], setting.way)) for g in (support, queries))
        return adapt_values(
            zero, start, inner, cross, pixels.support_labels, setting.inner_lr, steps
        )

    def _features(self, state: Features, x: Float[np.ndarray, "t m d"]) -> Float[Array, "t m r"]:
        """The last hidden layer's g of drawings."""
        flat = jnp.asarray(x.reshape(-1, x.shape[2]), self.dtype)
        found = engine.forward(self.rules, state.layers, flat).g[-1]
        return found.reshape(*x.shape[:2], -1)

    def _precision(self):
        return float64() if self.dtype == "float64" else contextlib.nullcontext()


def _one_step_only(setting: FewShot) -> None:
    if setting.inner_steps != 1:
        raise ValueError(
            f"inner_steps is {setting.inner_steps}: PiReadout is differentiated through one step "
            "from a readout of zero, so give 1."
        )


def _copied(state: engine.State) -> engine.State:
    """With copies of what a step gives away: the state before it may be kept as the best."""
    operators = tuple(
        operator._replace(blocks=(*operator.blocks[:-1], _copies(operator.blocks[-1])))
        for operator in state.operators
    )
    return _copies(state._replace(operators=()))._replace(operators=operators)


def _copies(tree):
    return jax.tree.map(jnp.copy, tree)


def _kernel(g1: Float[Array, "p r"], g2: Float[Array, "m r"]) -> Float[Array, "p m"]:
    point, size = PAIRS.stored(g2)
    return PAIRS.value(g1 @ point.T, jnp.sum(point**2, axis=1), jnp.sum(g1**2, axis=1)) * size


_kernels = jax.jit(jax.vmap(_kernel))


def _pulled(
    weight: Float[Array, "p m"], g1: Float[Array, "p r"], g2: Float[Array, "m r"]
) -> Float[Array, "p r"]:
    """The gradient in g1 of sum(weight * kernel(g1, g2)); JAX's own has none where both meet."""
    point, size = PAIRS.stored(g2)
    v11, v02 = PAIRS.slopes(g1 @ point.T, jnp.sum(point**2, axis=1), jnp.sum(g1**2, axis=1))
    weight = weight * size
    return (weight * v11) @ point + jnp.sum(weight * v02, axis=1)[:, None] * g1


@functools.partial(jax.jit, static_argnums=(2, 3))
def _task_slopes(
    support: Float[Array, "t m r"], queries: Float[Array, "t p r"], way: int, lr: float,
    support_labels: Int[Array, " m"], query_labels: Int[Array, " p"],
) -> TaskSlopes:  # fmt: skip
    """One inner step from a readout of zero, and the way back through it."""
    one_hot, wanted = jax.nn.one_hot(support_labels, way), jax.nn.one_hot(query_labels, way)

    def of_task(support, queries):
        first = -lr * (1 / way - one_hot) / len(one_hot)  # the readout's coefficients
        out = _kernel(queries, support) @ first
        losses = -jnp.sum(wanted * jax.nn.log_softmax(out), axis=1)
        slope = (jax.nn.softmax(out) - wanted) / len(wanted)
        weight = slope @ first.T
        return losses.mean(), _pulled(weight.T, support, queries), _pulled(weight, queries, support)

    return TaskSlopes(*jax.vmap(of_task)(support, queries))
