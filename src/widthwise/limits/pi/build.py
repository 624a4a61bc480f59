"""From a network, a scaling and a learner to the rules and the first state of a pi-limit."""

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.learner import GradientDescent
from widthwise.limits.pi import engine, rows
from widthwise.limits.pi.compress import GROWTH
from widthwise.limits.pi.pairs import pairs_of
from widthwise.memory import bytes_of
from widthwise.network.build import slot_of, specify
from widthwise.network.layer import AbstractLayer
from widthwise.network.projected import ProjectedStart
from widthwise.network.stack import of_stack, stack_of
from widthwise.projection import Projection
from widthwise.scaling import AbstractScaling


def rules_of(
    network: AbstractLayer, scaling: AbstractScaling, learner: GradientDescent, n_inputs: int
) -> engine.Rules:
    """The engine's constants: multipliers and step sizes without their powers of the width."""
    stack = stack_of(network)

    def constants(weight) -> tuple[float, float]:
        slot = slot_of(weight, scaling)
        return float(slot.multiplier.coefficient), float(slot.rate.coefficient)

    layers = []
    for affine in of_stack(stack, specify(network, n_inputs, 1)):
        (gain, rate), (bias_gain, bias_rate) = constants(affine.weight), constants(affine.bias)
        layers.append(engine.LayerRule(gain, bias_gain, rate, bias_rate))
    return engine.Rules(
        tuple(layers), tuple(map(pairs_of, stack.between)), learner.momentum,
        learner.weight_decay, learner.clip_by,
    )  # fmt: skip


def state_of_start(
    rules: engine.Rules, start: ProjectedStart, storage: str, dtype: str
) -> engine.State:
    """The engine's state at initial weights."""
    operators = []
    for pairs, (a, b) in zip(rules.pairs, start.operators, strict=True):
        points, factor = map(np.asarray, pairs.stored(jnp.asarray(b, dtype)))
        weights = np.ones(len(a), dtype)
        operators.append(
            rows.operator_of(a * factor[:, None], points, weights, 0 * weights, storage)
        )
    biases = [jnp.asarray(b, dtype) for b in start.biases]
    return engine.state_of(jnp.asarray(start.first, dtype), operators, biases)


def bytes_a_row(network: AbstractLayer, projection: Projection, n_outputs: int) -> int:
    """What a row costs in all layers together."""
    hidden, each = len(stack_of(network).between), {"float64": 8, "float32": 4, "bfloat16": 2}
    numbers = (2 * hidden - 1) * projection.rank + n_outputs
    return each[projection.storage] * numbers + 2 * max(4, each[projection.storage]) * hidden


def rows_kept(network: AbstractLayer, projection: Projection, n_outputs: int) -> int | None:
    """The budget of rows a layer; None where nothing bounds them.

    Memory holds three times as many rows before a projection, and while it runs a copy of one
    layer's and the kernel of those kept.
    """
    if projection.rows is not None:
        return projection.rows
    if projection.memory is None:
        return None if projection.tolerance is None else 4 * projection.rank
    each, total = bytes_a_row(network, projection, n_outputs), bytes_of(projection.memory)
    kernel = 8 if projection.storage == "float64" else 4
    held = 2 * GROWTH * each  # a row kept: held k + 2 kernel k^2 = total
    keep = int((np.sqrt(held**2 + 8 * kernel * total) - held) / (4 * kernel))
    if keep < projection.rank:
        raise ValueError(
            f"The memory {projection.memory!r} holds {keep} rows a layer, fewer than the "
            f"projection's {projection.rank} directions: give more, or a smaller rank."
        )
    return keep


def asleep(state: engine.State) -> engine.State:
    """The engine's state in NumPy arrays, which can be written and kept.

    Its blocks are as they are: in others sums would be rounded otherwise, and a training that was
    interrupted would not end as if it had not been.
    """
    return jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, state)


def awake(kept: engine.State) -> engine.State:
    """The engine's state again."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, kept)
