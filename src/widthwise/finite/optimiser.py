"""A learner as an Optax optimiser with one step size a tensor."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from widthwise.entrywise import entrywise
from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.linearised import AnyNetwork
from widthwise.finite.projected import Directions, project
from widthwise.learner import AbstractLearner, Entrywise, GradientDescent


def optimiser(
    net: AnyNetwork,
    learner: AbstractLearner,
    lr: float | Float[Array, ""],
    rows: int,
    factor: float | Float[Array, ""] = 1.0,
    directions: Directions | None = None,
) -> optax.GradientTransformation:
    """Steps of a learner in the coordinates of a network's scaling.

    Decay multiplies every weight by 1 - lr * decay whatever its step size, and ridge pulls with
    lr * ridge / rows in NTK coordinates: both mean the same at every width and under every
    equivalent choice of multiplier and initial variance. `factor` is the schedule's at this step;
    `directions` are read when the state is made.
    """
    rates = net.map(lambda one: one.rate)

    def scale_by_rate() -> optax.GradientTransformation:
        return optax.stateless(
            lambda updates, _: jax.tree.map(lambda u, r: -lr * factor * r * u, updates, rates)
        )

    if isinstance(learner, GradientDescent):
        momentum = optax.trace(learner.momentum) if learner.momentum else optax.identity()
        # decay after momentum, which would amplify it
        projected = optax.identity()
        if learner.projection is not None:
            assert isinstance(net, FiniteNetwork)  # projections are of features that move
            projected = project(net, directions)
        return optax.chain(
            projected,
            _clip(net, learner, factor),
            _anchor(learner.ridge / rows, rates),
            momentum,
            _decay(learner.weight_decay, rates),
            scale_by_rate(),
        )
    assert isinstance(learner, Entrywise)
    grow = net.map(lambda one: one.gradient_scale)
    return optax.chain(
        optax.stateless(lambda g, _: jax.tree.map(lambda u, s: s * u, g, grow)),
        entrywise(learner),
        _decay(learner.weight_decay, rates),
        scale_by_rate(),
    )


def _clip(
    net: AnyNetwork, learner: GradientDescent, factor: float | Float[Array, ""]
) -> optax.GradientTransformation:
    """Bounds norms in width-free coordinates, where they are the same at every width."""
    if learner.clip is None:
        return optax.identity()
    bound = factor * learner.clip

    def update(updates, _):
        sizes = net.map(lambda one, g: one.norm_scale * jnp.linalg.norm(g), updates)
        if learner.clip_by == "global":
            total = jnp.sqrt(sum(size**2 for size in jax.tree.leaves(sizes)))
            sizes = jax.tree.map(lambda _: total, sizes)
        return jax.tree.map(lambda g, s: g * jnp.minimum(1.0, bound / (1e-10 + s)), updates, sizes)

    return optax.stateless(update)


def _decay(strength: float, rates) -> optax.GradientTransformation:
    if not strength:
        return optax.identity()

    def update(updates, parameters):
        return jax.tree.map(lambda u, w, r: u + _over(strength, r) * w, updates, parameters, rates)

    return optax.stateless(update)


def _anchor(strength: float, rates) -> optax.GradientTransformation:
    """Pulls towards the initial weights, which are its state."""
    if not strength:
        return optax.identity()

    def init(params):
        # a copy: the loop donates parameters and state, and no buffer can be given away twice
        return jax.tree.map(jnp.copy, params)

    def update(updates, state, params=None):
        pulled = jax.tree.map(
            lambda u, w, w0, r: u + _over(strength, r) * (w - w0), updates, params, state, rates
        )
        return pulled, state

    return optax.GradientTransformation(init, update)


def _over(strength: float, rate: float) -> float:
    """strength / rate; 0 for weights that are not trained, whose rate is 0."""
    return strength / rate if rate else 0.0
