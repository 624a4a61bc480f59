"""What finite networks differ by: covariances of predictions and kernels, times the width.

Means over N neurons of observables O whose limits are q fluctuate by their own noise and by what
other observables' fluctuations do to them: dq = noise + J dq, with J = E[dO / dq] and noise of
covariance kappa / N, kappa that of one neuron's observables. So N Cov(q) = (1 - J)^-1 kappa (1 -
J)^-T.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

from widthwise.limits.descent import loss_slope
from widthwise.limits.mean_field.limit import DynamicalMeanField
from widthwise.limits.mean_field.samples import Drawn
from widthwise.limits.mean_field.sites import Sites, sites_of
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem, batches
from widthwise.scaling import AbstractScaling
from widthwise.solve import float64

MOST = 3000  # observables: steps times rows

# ---------------------------------------------------------------------------------------------
# One hidden layer, while it is trained
# ---------------------------------------------------------------------------------------------


class Fluctuations(NamedTuple):
    """Means in the limit and N times covariances; training rows stand first, then test rows."""

    predictions: Float[np.ndarray, "t r"]
    covariance: Float[np.ndarray, "t r t r"]  # of predictions
    kernel: Float[np.ndarray, "r r"]  # the tangent kernel after training
    kernel_covariance: Float[np.ndarray, "r r r r"]


class _Rule(NamedTuple):
    """What the particles' steps depend on."""

    inputs: Float[np.ndarray, "r c"]
    targets: Float[np.ndarray, "r k"]
    shares: Float[np.ndarray, "t r"]  # of every row in the mean of each batch
    lr: Float[np.ndarray, " t"]


def fluctuations(limit: DynamicalMeanField, problem: Problem, *, order: int = 0) -> Fluctuations:
    """The covariance over initial weights of a network of one hidden layer, times its width.

    >>> x, y = np.array([[1.0]]), np.array([[1.0]])
    >>> problem = Problem(x, y, x[:0], y[:0], 0.0, "regression")
    >>> limit = DynamicalMeanField(Dense() >> Erf() >> Readout(), MuP(),
    ...                            GradientDescent(lr=0.1, steps=3), samples=2000)
    >>> fluctuations(limit, problem).covariance.shape
    (4, 1, 4, 1)

    Squared error, mini-batches and schedules; expectations over `limit.samples` neurons. The
    covariance counts the initial function, of variance 1 / width, as finite networks keep it.
    Source: bordelon2023, section 4, for descent in steps: the outputs at all steps are the order
    parameters.

    Args:
        limit: its settings; one hidden layer, no momentum and no weight decay.
        problem: training and test rows; one output.
        order: seeds the batches.

    Raises ValueError for other networks and learners, MemoryError for more than 3,000 steps times
    rows.
    """
    learner = limit.learner
    sites = sites_of(limit.network, limit.scaling, problem.x_train.shape[1])
    if len(sites.hidden) > 1 or problem.y_train.shape[1] != 1 or learner.loss != "mse":
        raise ValueError(
            f"Fluctuations of {limit.network!r} while it is trained are not known: use one hidden "
            "layer, one output and squared error."
        )
    if learner.momentum or learner.weight_decay or learner.lr is None:
        raise ValueError(
            f"Fluctuations under {learner!r} are not known: give lr, leave out momentum and "
            "weight_decay."
        )
    rows = len(problem.x_train) + len(problem.x_test)
    if (learner.steps + 1) * rows > MOST:
        raise MemoryError(
            f"{learner.steps + 1} times {rows} rows are more than {MOST:,} observables: use fewer "
            "rows or steps."
        )
    rule = _rule(limit, problem, order)
    drawn = Drawn(limit.samples, np.random.default_rng(0))
    normals = drawn.fresh(rule.inputs.shape[1] + 2).astype(np.float64)
    with float64():
        follow = functools.partial(_follow, sites, jax.tree.map(jnp.asarray, rule), normals)
        path = np.asarray(jax.jit(lambda: follow(None)[0].mean(axis=1))())
        means = jax.jit(lambda p: jax.tree.map(lambda o: o.mean(axis=-2).ravel(), follow(p)))
        unit = np.eye(path.size).reshape(path.size, *path.shape)
        turned = jax.jit(
            lambda: jax.lax.map(lambda e: jax.jvp(means, (path,), (e,))[1], unit)
        )()  # one row an entry of the path
        outputs, kernels = (np.asarray(o) for o in jax.jit(follow)(path))
    return _assemble(path, outputs, kernels, *(np.asarray(j).T for j in turned))


def _rule(limit: DynamicalMeanField, problem: Problem, order: int) -> _Rule:
    learner, n = limit.learner, len(problem.x_train)
    x = np.concatenate([problem.x_train, problem.x_test])
    y = np.concatenate([problem.y_train, problem.y_test])
    chosen = batches(n, learner.steps, learner.batch_size, order)
    shares = np.zeros((learner.steps, len(x)))
    if chosen is None:
        shares[:, :n] = 1.0 / n
    else:
        for number, batch in enumerate(chosen):
            np.add.at(shares[number], batch, 1.0 / len(batch))
    _, values, vectors = np.linalg.svd(x, full_matrices=False)
    assert learner.lr is not None
    return _Rule(
        x @ vectors[values > 1e-10 * values[0]].T, y, shares,
        learner.lr * learner.schedule.factors(learner.steps),
    )  # fmt: skip


def _follow(sites: Sites, rule: _Rule, normals, path):
    """One neuron's parts in the outputs at all steps, (t, s, r), and in the final tangent kernel,
    (s, r * r), of every sample; `path` None lets the outputs be the samples' own mean."""
    site, inputs = sites.hidden[0], rule.inputs
    activation = site.activation or (lambda h: h)
    *first, bias, readout = jnp.asarray(normals)
    first = site.weight.std * jnp.stack(first, axis=1)
    start = first, site.bias.std * bias, sites.weight.std * readout, 0.0

    def see(state):
        first, bias, readout, offset = state
        h = first @ inputs.T + bias[:, None]
        features, slopes = jax.jvp(activation, (h,), (jnp.ones_like(h),))
        return features, readout[:, None] * slopes, features * readout[:, None] + offset

    # the samples' own mean starts at a little off zero, which is no part of the limit
    off = see(start)[2].mean(axis=0)

    def step(state, now):
        lr, shares, out = now
        first, bias, readout, offset = state
        features, gradients, parts = see(state)
        out = parts.mean(axis=0) - off if path is None else out
        force = shares * loss_slope(out[:, None], rule.targets, "mse")[:, 0]
        pushed = gradients * force
        moved = (
            first - lr * site.weight.step * pushed @ inputs,
            bias - lr * site.bias.step * pushed.sum(axis=1),
            readout - lr * sites.weight.step * features @ force,
            offset - lr * sites.bias.step * force.sum(),
        )
        return moved, parts

    outs = jnp.zeros_like(rule.shares) if path is None else path[:-1]
    last, parts = jax.lax.scan(step, start, (rule.lr, rule.shares, outs))
    features, gradients, final = see(last)
    parts = jnp.concatenate([parts, final[None]])
    parts = parts - off if path is None else parts
    pairs = site.weight.step * inputs @ inputs.T + site.bias.step
    kernel = (
        sites.weight.step * features[:, :, None] * features[:, None, :]
        + pairs * gradients[:, :, None] * gradients[:, None, :]
        + sites.bias.step
    )
    return parts, kernel.reshape(len(kernel), -1)


def _assemble(path, outputs, kernels, own, across) -> Fluctuations:
    """`own`, `across`: what outputs at earlier steps do to outputs, and to the kernel."""
    times, rows = path.shape
    parts = np.concatenate([outputs.transpose(1, 0, 2).reshape(len(kernels), -1), kernels], axis=1)
    kappa = np.cov(parts, rowvar=False)
    feedback = np.eye(len(own)) - own
    back = scipy.linalg.solve_triangular(feedback, np.eye(len(own)), lower=True)
    response = np.eye(len(kappa))
    response[: len(own), : len(own)] = back
    response[len(own) :, : len(own)] = across @ back
    full = response @ kappa @ response.T
    return Fluctuations(
        path,
        full[: len(own), : len(own)].reshape(times, rows, times, rows),
        kernels.mean(axis=0).reshape(rows, rows),
        full[len(own) :, len(own) :].reshape(rows, rows, rows, rows),
    )


# ---------------------------------------------------------------------------------------------
# Any depth, at initialisation
# ---------------------------------------------------------------------------------------------


def initial_fluctuations(
    network: AbstractLayer, scaling: AbstractScaling, x: Float[np.ndarray, "r d"],
    *, samples: int = 1 << 18,
) -> Float[np.ndarray, "l r r m r r"]:  # fmt: skip
    """N times the covariance of all layers' feature kernels at initialisation.

    >>> found = initial_fluctuations(Dense() >> Relu() >> Dense() >> Relu() >> Readout(), MuP(),
    ...                              np.ones((1, 1)), samples=4096)
    >>> found.shape
    (2, 1, 1, 2, 1, 1)

    A layer adds the noise of its own N neurons and passes on that of the kernel it reads; the
    expectations are over `samples` of them. Source: bordelon2023, section 4.

    Raises ValueError for rows that are not distinct, and NoStack for networks of another kind.
    """
    sites = sites_of(network, scaling, x.shape[1])
    rows, depth = len(x), len(sites.hidden)
    entries = rows * rows
    covariance = np.zeros((depth, entries, depth, entries))
    kernel, rng = x @ x.T, np.random.default_rng(0)
    for i, site in enumerate(sites.hidden):
        arriving = site.weight.std**2 * kernel + site.bias.std**2
        values, vectors = np.linalg.eigh(arriving)
        if values[0] < 1e-10 * values[-1]:
            raise ValueError(
                "The rows are linearly dependent in a layer, so that kernels of theirs are no "
                "free parameters: leave out what repeats others."
            )
        h = rng.standard_normal((samples, rows)) @ (vectors * np.sqrt(values)).T
        features = h
        if site.activation is not None:
            with float64():
                features = np.asarray(site.activation(jnp.asarray(h)))
        parts = (features[:, :, None] * features[:, None, :]).reshape(samples, entries)
        kernel = parts.mean(axis=0).reshape(rows, rows)
        covariance[i, :, i] = np.cov(parts, rowvar=False).reshape(entries, entries)
        if i == 0:
            continue
        # d E[O] / d covariance of h, from the density's own derivative
        inverse = np.linalg.inv(arriving)
        score = h @ inverse
        score = (score[:, :, None] * score[:, None, :] - inverse).reshape(samples, entries) / 2
        passed = site.weight.std**2 * (parts - parts.mean(axis=0)).T @ score / samples
        for j in range(i):
            covariance[i, :, j] = passed @ covariance[i - 1, :, j]
            covariance[j, :, i] = covariance[i, :, j].T
        covariance[i, :, i] += passed @ covariance[i - 1, :, i - 1] @ passed.T
    return covariance.reshape(depth, rows, rows, depth, rows, rows)
