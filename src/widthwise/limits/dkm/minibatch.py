"""The bound that a machine with inducing variables maximises, estimated on some rows, and Adam."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from widthwise.inference import Inducing
from widthwise.limits.base import Work
from widthwise.limits.dkm.blocks import Blocks
from widthwise.limits.dkm.full import whiten
from widthwise.limits.dkm.passage import through
from widthwise.limits.dkm.sites import Machine, Site, is_site, sites_of, spreads
from widthwise.limits.dkm.stochastic import exact_divergence, noised, quadratic_divergence
from widthwise.limits.dkm.variational import (
    TRAINING,
    Outputs,
    draws_of,
    expected_categorical,
    expected_gaussian,
    output_divergence,
    outputs_of,
)
from widthwise.problem import Diverged, batches

NARROW = 0.1
DROPS = (0.4, 0.8)  # shares of the steps after which the step size is a tenth


class Bound(NamedTuple):
    """What the bound is of: all that is settled. `noise` is None for classes; see `Inducing` for
    the last two; `rows` is how many there are in all."""

    machine: Machine
    noise: float | None
    rows: int
    regularisation: float | None = None
    quadratic: bool = False


class Fitted(NamedTuple):
    """All that is free: what `drawn` gives for the layers, and of the outputs at the inducing
    variables the whitened means (m, k) and the triangle (m, m) of their covariance."""

    layers: Any
    mean: Any
    triangle: Any


def start(layers: Any, points: int, outputs: int) -> Fitted:
    """Outputs with the prior's mean and NARROW times its standard deviations: with the whole of it
    the logarithms of chances are so uncertain that training would first unlearn the features."""
    narrow = math.sqrt(2) * math.log(NARROW) * np.eye(points)
    return Fitted(layers, np.zeros((points, outputs)), narrow)


class Result(NamedTuple):
    """Rows through the network: what `Passed` says, their outputs, and the outputs' covariance
    among them where it was asked for."""

    behind: tuple[Blocks, ...]
    least: dict[str, Any]
    outputs: Outputs
    among: Any


def passed(
    bound: Bound,
    fitted: Fitted,
    x: Float[Array, "b d"],
    key: PRNGKeyArray | None = None,
    whole: bool = False,
) -> Result:
    """Rows through the network; with a key the Gram matrices are noised, and `whole` asks for
    covariances among rows, for networks of vectors."""
    spread = spreads(sites_of(bound.machine), fitted.layers)
    if key is not None and bound.regularisation is not None:
        leaves, shape = jax.tree.flatten(spread)
        keys = jax.random.split(key, max(len(leaves), 1))
        share = bound.regularisation
        leaves = [noised(one, leaf, share) for one, leaf in zip(keys, leaves, strict=False)]
        spread = jax.tree.unflatten(shape, leaves)
    found = through(bound.machine, fitted.layers, spread, x, whole)
    root = whiten(fitted.triangle, 1.0)
    outputs, least, among = outputs_of(found.behind[-1], fitted.mean, root)
    return Result(found.behind, found.least | {"the readout": least}, outputs, among)


def divergences(bound: Bound, fitted: Fitted) -> list[tuple[Site, Any]]:
    """Of each hidden layer whose Gram matrix is free, how far that is from its prior."""
    measure = quadratic_divergence if bound.quadratic else exact_divergence
    sites = jax.tree.leaves(sites_of(bound.machine), is_leaf=is_site)
    free = [site for site in sites if site.rank]
    spread = jax.tree.leaves(spreads(sites_of(bound.machine), fitted.layers))
    return [(site, measure(one)) for site, one in zip(free, spread, strict=True)]


def loss(
    bound: Bound,
    fitted: Fitted,
    x: Float[Array, "b d"],
    y: Num[Array, "b ..."],
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """Minus the bound over the number of rows, of which these are some: in expectation over them
    and over the key it is

        -(sum_n E log p(y_n | f_n) - sum_l nu_l KL(G^l | K^l) - sum_j KL(q(u_j) | p(u_j))) / rows.

    The likelihood is summed over all rows and the outputs' divergence over all outputs, whole: that
    is the scale that nu is of. `y` holds labels (b,) for classes, targets (b, k) beside noise.

    Source: yang2023theory, inducing points.
    """
    noise, draws = jax.random.split(key)
    outputs = passed(bound, fitted, x, noise).outputs
    if bound.noise is None:
        chosen = draws_of(draws, TRAINING, outputs.mean.shape, outputs.mean.dtype)
        fit = expected_categorical(outputs, y, chosen)
    else:
        fit = expected_gaussian(outputs, y, bound.noise)
    apart = sum(site.nu * far for site, far in divergences(bound, fitted))
    apart += output_divergence(fitted.mean, whiten(fitted.triangle, 1.0))
    return apart / bound.rows - jnp.mean(fit)


@functools.partial(jax.jit, static_argnums=(0, 1))
def step(bound: Bound, pace: tuple[float, int], fitted: Fitted, state: Any, x, y, key):
    """A step of Adam at a pace of `lr` and so many steps: what is free and Adam's state after
    it, and the loss before."""
    value, slope = jax.value_and_grad(loss, argnums=1)(bound, fitted, x, y, key)
    moved, state = _adam(*pace).update(slope, state, fitted)
    return optax.apply_updates(fitted, moved), state, value


def first_state(pace: tuple[float, int], begin: Fitted) -> tuple[Fitted, Any]:
    """What is free, in JAX's arrays, and Adam's state before the first step."""
    fitted = jax.tree.map(jnp.asarray, begin)
    return fitted, _adam(*pace).init(fitted)


def _adam(lr: float, steps: int) -> optax.GradientTransformation:
    drops = {max(1, int(share * steps)): 0.1 for share in DROPS}
    return optax.adam(optax.piecewise_constant_schedule(lr, drops))


class Course(NamedTuple):
    """How far training is: a checkpoint, and at the end what it leaves. `bounds` has the mean
    estimate of the bound in each epoch."""

    epoch: int
    fitted: Fitted
    state: Any
    bounds: tuple[float, ...]


def fit(
    bound: Bound,
    begin: Fitted,
    x: Float[np.ndarray, "n d"],
    y: Num[np.ndarray, "n ..."],
    inducing: Inducing,
    order: int,
    work: Work,
    name: str,
) -> Course:
    """Adam from `begin` on; `name` tells this training from others in a checkpoint, which is
    written after each epoch. Rows, noise and draws follow from `order`.

    Raises Diverged where the bound is no number.
    """
    size = min(inducing.batch_size or len(x), len(x))
    each = -(-len(x) // size)
    pace = (inducing.lr, each * inducing.epochs)
    chosen = batches(len(x), pace[1], size, order)
    course: Course | None = work.kept(name)
    if course is None:
        course = Course(0, *first_state(pace, begin), ())
    work.advance(course.epoch / inducing.epochs)
    fitted, state = jax.tree.map(jnp.asarray, (course.fitted, course.state))
    for epoch in range(course.epoch, inducing.epochs):
        values = []
        for number in range(epoch * each, (epoch + 1) * each):
            rows = slice(None) if chosen is None else chosen[number]
            key = jax.random.fold_in(jax.random.key(order), number)
            fitted, state, value = step(
                bound, pace, fitted, state, jnp.asarray(x[rows]), jnp.asarray(y[rows]), key
            )
            values.append(value)
            work.advance(1 / pace[1])
        mean = -bound.rows * float(np.mean(values))
        if not np.isfinite(mean):
            raise Diverged(
                f"The bound left the finite numbers in epoch {epoch + 1}: lower lr of Inducing, or "
                "give a larger nu."
            )
        own, adam = jax.tree.map(np.asarray, (fitted, state))
        course = Course(epoch + 1, own, adam, (*course.bounds, mean))
        work.keep(name, course)
    return course


def labels_of(y: Float[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
    """The class of each row of one-hot targets."""
    return np.argmax(y, axis=1).astype(np.int32)
