"""The log evidence of a Gaussian process, its gradient, and what it chooses."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as tree_util
import numpy as np
import scipy.optimize
from jaxtyping import Float

from widthwise.kernels import kernel_matrix
from widthwise.network.begin import begin
from widthwise.network.build import tangents
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import Moments
from widthwise.scaling import NTK, AbstractScaling
from widthwise.solve import Spectrum, float64

Which = Literal["nngp", "ntk"]
CHOSEN = ("weight_variance", "bias_variance")
ROWS = 2000  # rows on which variances are chosen
NOISES = (1e-8, 1e2)  # relative to the mean of the kernel's diagonal
REACH = math.log(1e3)  # how far a variance may move from where it starts, as a factor


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
    evaluate = _evidence_and_gradient(network, x, y, scaling or NTK(), kernel, paths)
    value, slopes = evaluate(values)
    names = [tree_util.keystr(path, simple=True, separator=".") for path in paths]
    names = [name.removeprefix("layers.") for name in names]
    return Evidence(
        value, float(slopes[-1]), dict(zip(names, map(float, slopes[:-1]), strict=True))
    )


def best_noise(
    kernel: Float[np.ndarray, "n n"], y: Float[np.ndarray, "n k"]
) -> tuple[float, float]:
    """The noise variance of the largest log evidence, and that evidence: one spectrum, any noise.

    >>> best_noise(np.eye(4), np.array([[2.0], [-2.0], [2.0], [-2.0]]))[0] > 2.5
    True
    """
    spectrum = Spectrum.of(np.asarray(kernel, dtype=float))
    power = np.sum((spectrum.vectors.T @ y) ** 2, axis=1)
    scale = float(np.mean(np.diagonal(kernel)))
    rows, columns = y.shape

    def negative(log_noise: float) -> float:
        level = spectrum.values + math.exp(log_noise)
        fit = np.sum(power / level) + columns * np.sum(np.log(level))
        return 0.5 * (fit + rows * columns * math.log(2 * math.pi))

    low, high = (math.log(bound * scale) for bound in NOISES)
    high = max(high, math.log(10 * float(np.mean(y**2)) + math.exp(low)))  # all of y may be noise
    # The evidence may have two peaks, noise or signal: look everywhere, then refine.
    grid = np.linspace(low, high, 47)
    best = int(np.argmin([negative(point) for point in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(negative, bounds=ends, method="bounded")
    return math.exp(float(found.x)), -float(found.fun)  # type: ignore[attr-defined]


def best_variances(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    scaling: AbstractScaling,
    kernel: Which,
    noise: float | None,
) -> tuple[AbstractLayer, float]:
    """The network with the variances, and the noise, of the largest log evidence.

    Variances that are zero stay zero; chosen on at most the first 2,000 rows, by L-BFGS on
    logarithms. A `noise` that is given stays.
    """
    x, y = x[:ROWS], y[:ROWS]
    paths = _paths(network)
    fixed = noise
    if noise is None:
        noise, _ = best_noise(getattr(kernel_matrix(network, x, scaling=scaling), kernel), y)
    start = np.log([*(_at(network, path) for path in paths), noise])
    evidence = _evidence_and_gradient(network, x, y, scaling, kernel, paths)

    def negative(logs):
        values = np.exp(logs)
        value, slopes = evidence(values)
        if not (math.isfinite(value) and np.isfinite(slopes).all()):
            return 1e300, np.zeros_like(logs)  # not positive definite: the line search backs off
        return -value, -slopes * values

    bounds = [(at - REACH, at + REACH) for at in start]
    if fixed is not None:
        bounds[-1] = (start[-1], start[-1])
    found = scipy.optimize.minimize(negative, start, jac=True, method="L-BFGS-B", bounds=bounds)
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


def _evidence_and_gradient(network, x, y, scaling, kernel: Which, paths):
    """(variances and noise) -> (log evidence, its gradient), in float64."""
    # Networks that differ in their variances only share one compilation.
    frame = _with(network, paths, [1.0] * len(paths))

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        with float64():
            arrays = (jnp.asarray(part, dtype=float) for part in (values, x, y))
            value, slopes = _compiled(frame, scaling, kernel, tuple(paths), *arrays)
            return float(value), np.asarray(slopes)

    return evaluate


def _log_evidence(frame, scaling, kernel: Which, paths, values, x, y):
    network = _with(frame, paths, list(values[:-1]))
    moments = network.kernel(tangents(network, x.shape[1], scaling), begin(network, x)).mixed()
    assert isinstance(moments, Moments)
    matrix = moments.xy if kernel == "nngp" else moments.ntk
    lower = jnp.linalg.cholesky(matrix + values[-1] * jnp.eye(len(x)))
    fit = jax.scipy.linalg.cho_solve((lower, True), y)
    log_determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
    size = y.shape[1] * (log_determinant + len(x) * math.log(2 * math.pi))
    return -0.5 * (jnp.sum(y * fit) + size)


_compiled = jax.jit(jax.value_and_grad(_log_evidence, argnums=4), static_argnums=(0, 1, 2, 3))
