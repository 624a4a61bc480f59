"""The log evidence of a Gaussian process, its gradient, and the variances that it chooses."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as tree_util
import numpy as np
import scipy.optimize
from jaxtyping import Float

from widthwise.kernels import kernel_matrix
from widthwise.learner import Criterion
from widthwise.limits.bound import Blocks, negative_bound, summarised
from widthwise.limits.noise import best_noise, negative_evidence
from widthwise.network.begin import begin
from widthwise.network.build import tangents
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import Moments
from widthwise.scaling import NTK, AbstractScaling
from widthwise.solve import float64

Which = Literal["nngp", "ntk"]
CHOSEN = ("weight_variance", "bias_variance")
ROWS = 2000  # rows on which variances are chosen
REACH = math.log(1e3)  # how far a variance may move from where it starts, as a factor
JITTER = 1e-10  # of the mean diagonal of inducing rows' kernel, while variances move


class Evidence(NamedTuple):
    """The log evidence and its derivatives in the noise and in every variance, by name."""

    value: float
    noise: float
    variances: dict[str, float]


def log_evidence(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    noise: float,
    scaling: AbstractScaling | None = None,
    kernel: Which = "nngp",
) -> Evidence:
    """log p(y | x) of a network's Gaussian process, and its gradient.

    >>> found = log_evidence(Dense() >> Relu() >> Readout(), np.eye(3), np.ones((3, 1)), noise=1.0)
    >>> sorted(found.variances)
    ['0.weight_variance', '2.weight_variance']

    Args:
        network: its variances above zero are what the gradient is taken in; the names start with
            the position of the layer.
        x, y: rows, and targets whose columns share the kernel.
        noise: variance of the noise, above zero.
        scaling: `NTK()` unless given.
        kernel: "nngp" or "ntk".

    Source: rasmussen2006, eqs. (2.30) and (5.9).
    """
    paths = _paths(network)
    values = np.array([*(_at(network, path) for path in paths), noise], dtype=float)
    evaluate = _loss_and_gradient(network, x, y, scaling or NTK(), kernel, "evidence", paths)
    value, slopes = evaluate(values)
    names = [tree_util.keystr(path, simple=True, separator=".") for path in paths]
    names = [name.removeprefix("layers.") for name in names]
    return Evidence(
        -value, -float(slopes[-1]), dict(zip(names, map(float, -slopes[:-1]), strict=True))
    )


def best_variances(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    scaling: AbstractScaling,
    kernel: Which,
    noise: float | None,
    criterion: Criterion = "evidence",
    inducing: Float[np.ndarray, "m d"] | None = None,
) -> tuple[AbstractLayer, float]:
    """The network with the variances, and the noise, that are best by a criterion of `best_noise`.

    Variances that are zero stay zero; chosen on at most the first 2,000 rows, by L-BFGS on
    logarithms, or on all of them by the bound on the evidence through `inducing` rows. A `noise`
    that is given stays.
    """
    paths = _paths(network)
    fixed, (some, targets) = noise, (x[:ROWS], y[:ROWS])
    if noise is None:
        noise, _ = best_noise(
            kernel_matrix(network, some, which=kernel, scaling=scaling), targets, criterion
        )
    start = np.log([*(_at(network, path) for path in paths), noise])
    if inducing is None:
        loss = _loss_and_gradient(network, some, targets, scaling, kernel, criterion, paths)
    else:
        loss = _bound_and_gradient(network, x, y, inducing, scaling, kernel, paths)

    def by_logarithms(logs):
        values = np.exp(logs)
        value, slopes = loss(values)
        if not (math.isfinite(value) and np.isfinite(slopes).all()):
            return 1e300, np.zeros_like(logs)  # not positive definite: the line search backs off
        return value, slopes * values

    bounds = [(at - REACH, at + REACH) for at in start]
    if fixed is not None:
        bounds[-1] = (start[-1], start[-1])
    found = scipy.optimize.minimize(
        by_logarithms, start, jac=True, method="L-BFGS-B", bounds=bounds
    )
    values = np.exp(found.x)
    return _with(network, paths, [float(v) for v in values[:-1]]), float(values[-1])


def _paths(network: AbstractLayer) -> list[Any]:
    """Where the variances stand in the network's tree, those that are zero left out."""
    leaves = tree_util.tree_flatten_with_path(network)[0]
    return [path for path, leaf in leaves if getattr(path[-1], "name", "") in CHOSEN and leaf > 0]


def _at(network: AbstractLayer, path) -> float:
    return dict(tree_util.tree_flatten_with_path(network)[0])[path]


def _with(network: AbstractLayer, paths, values) -> AbstractLayer:
    """The network with other variances at these paths."""
    new = dict(zip(paths, values, strict=True))
    leaves, tree = tree_util.tree_flatten_with_path(network)
    return tree_util.tree_unflatten(tree, [new.get(path, leaf) for path, leaf in leaves])


def _loss_and_gradient(network, x, y, scaling, kernel: Which, criterion: Criterion, paths):
    """(variances and noise) -> (what is to be small, its gradient), in float64."""
    # Networks that differ in their variances only share one compilation.
    frame = _with(network, paths, [1.0] * len(paths))

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        with float64():
            arrays = (jnp.asarray(part, dtype=float) for part in (values, x, y))
            value, slopes = _compiled(frame, scaling, kernel, criterion, tuple(paths), *arrays)
            return float(value), np.asarray(slopes)

    return evaluate


def _bound_and_gradient(network, x, y, inducing, scaling, kernel: Which, paths):
    """The same of the bound that inducing rows give."""
    frame = _with(network, paths, [1.0] * len(paths))
    with float64():
        rows = Blocks.of(x, y), jnp.asarray(y), jnp.asarray(inducing)

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        with float64():
            value, slopes = _compiled_bound(frame, scaling, kernel, tuple(paths), values, *rows)
            return float(value), np.asarray(slopes)

    return evaluate


def _entries(network: AbstractLayer, scaling, kernel: Which, x, other=None):
    own = tangents(network, x.shape[1], scaling)
    moments = network.kernel(own, begin(network, x, other)).mixed()
    assert isinstance(moments, Moments)
    return moments.xy if kernel == "nngp" else moments.ntk


def _bound(frame, scaling, kernel: Which, paths, values, blocks: Blocks, y, inducing):
    network = _with(frame, paths, list(values[:-1]))
    among = _entries(network, scaling, kernel, inducing)
    jitter = JITTER * jnp.mean(jnp.diagonal(among)) * jnp.eye(len(among))

    def behind(x):
        alone = jax.vmap(lambda row: _entries(network, scaling, kernel, row[None])[0, 0])
        return _entries(network, scaling, kernel, x, inducing), alone(x)

    summary = summarised(behind, jnp.linalg.cholesky(among + jitter), blocks)
    return negative_bound(summary, y, values[-1])


_compiled_bound = jax.jit(jax.value_and_grad(_bound, argnums=4), static_argnums=(0, 1, 2, 3))


def _loss(frame, scaling, kernel: Which, criterion: Criterion, paths, values, x, y):
    network = _with(frame, paths, list(values[:-1]))
    matrix = _entries(network, scaling, kernel, x)
    lower = jnp.linalg.cholesky(matrix + values[-1] * jnp.eye(len(x)))
    fit = jax.scipy.linalg.cho_solve((lower, True), y)
    if criterion == "leave_one_out":
        half = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(x)), lower=True)
        return jnp.sum((fit / jnp.sum(half**2, axis=0)[:, None]) ** 2) / len(x)
    log_determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
    return negative_evidence(jnp.sum(y * fit), log_determinant, y)


_compiled = jax.jit(jax.value_and_grad(_loss, argnums=5), static_argnums=(0, 1, 2, 3, 4))
