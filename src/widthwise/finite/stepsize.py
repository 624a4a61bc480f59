"""The largest first step of an entrywise optimiser that does not raise the loss's model."""

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.train import initial_key, sample_loss
from widthwise.learner import LossName
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem
from widthwise.scaling import AbstractScaling

REFERENCE_WIDTH = 256  # one step size serves all widths: it is measured at this one
ROWS = 512


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
