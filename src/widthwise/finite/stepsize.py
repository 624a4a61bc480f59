"""The largest stable step size where no formula knows it: measured on one network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.train import initial_key, sample_loss, train
from widthwise.learner import AbstractLearner, LossName
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Diverged, Problem
from widthwise.scaling import AbstractScaling

REFERENCE_WIDTH = 64  # one step size serves all widths: it is measured at this one
ROWS = 512
TRIAL_STEPS, HALVINGS = 200, 10
SEEDS, NARROW_SEEDS = 2, 4  # tried: narrow networks differ more from each other


def largest_step_by_trial(
    network: AbstractLayer,
    scaling: AbstractScaling,
    problem: Problem,
    learner: AbstractLearner,
    first: float,
    width: int,
) -> float:
    """The largest of first, first / 2, first / 4, ... at which training goes down.

    Stable at the start says little where features move: the tangent kernel grows with them. Each
    trial trains two networks of this width, four below 64, on at most 512 rows for at most 200
    steps; it passes if their losses never rise above where they began.

    Raises ValueError where no step of 1/1024 of the first passes.
    """
    shown = problem._replace(
        x_train=problem.x_train[:ROWS], y_train=problem.y_train[:ROWS],
        x_test=problem.x_test[:0], y_test=problem.y_test[:0],
    )  # fmt: skip
    n_inputs, n_outputs = shown.x_train.shape[1], shown.y_train.shape[1]
    net = FiniteNetwork(network, width, n_inputs, n_outputs, scaling, learner.entrywise)
    steps = min(TRIAL_STEPS, learner.steps)  # type: ignore[attr-defined]
    trial = dataclasses.replace(learner, steps=steps)
    seeds = range(SEEDS if width >= REFERENCE_WIDTH else NARROW_SEEDS)
    for halving in range(HALVINGS + 1):
        lr = first / 2**halving
        try:
            losses = [train(net, shown, trial, lr=lr, seed=s)[1].train_loss for s in seeds]
        except Diverged:
            continue
        if all(loss[-1] < loss[0] >= loss.max() for loss in losses):
            return lr
    raise ValueError(
        f"No default step size: training does not go down at any step from {first:.3g} to "
        f"{first / 2**HALVINGS:.3g}; give lr."
    )


def largest_first_step(
    network: AbstractLayer, scaling: AbstractScaling, problem: Problem, loss: LossName
) -> float:
    """Step size at which a first step of signs leaves the loss's Gauss-Newton model unchanged.

    With u the step per unit step size and J u its change of the outputs, the model is
    -eta g.u + eta^2 (J u) H (J u) / 2, which is zero again at 2 g.u / (J u) H (J u).
    """
    x = jnp.asarray(problem.x_train[:ROWS], "float32")
    y = jnp.asarray(problem.y_train[:ROWS], "float32")
    net = FiniteNetwork(network, REFERENCE_WIDTH, x.shape[1], y.shape[1], scaling, True)
    parameters = net.draw(initial_key(0))

    def rows_loss(out):
        return jnp.mean(jax.vmap(lambda o, t: sample_loss(o, t, loss))(out, y))

    @jax.jit
    def measure(parameters):
        out = net.apply(parameters, x)
        gradient = jax.grad(lambda p: rows_loss(net.apply(p, x)))(parameters)
        step = net.map(lambda one, g: jnp.float32(one.rate) * jnp.sign(g), gradient)
        moved = jax.jvp(lambda p: net.apply(p, x), (parameters,), (step,))[1]
        bend = jax.jvp(jax.grad(rows_loss), (out,), (moved,))[1]
        products = jax.tree.map(lambda g, u: jnp.sum(g * u), gradient, step)
        return sum(jax.tree.leaves(products)), jnp.sum(moved * bend)

    fall, bend = (float(part) for part in measure(parameters))
    if not (np.isfinite(fall) and np.isfinite(bend)) or bend <= 0:
        raise ValueError("No default step size: the loss is flat at the start; give lr.")
    return 2.0 * fall / bend
