"""Initial weights inside the span of r random directions a layer.

Where gradients are projected onto r directions Omega (n, r) of a layer's outputs, its initial
weights are too: what they would be, projected. Layer 1 is Omega_1 A_1^T. A hidden layer is
Omega_l sum_m A_m f(Omega_(l-1) B_m)^T: read at features of r random points B, with coefficients
K_BB^(-1/2) N, so that W f has the covariance of Gaussian weights there. The readout is a
variable of one more direction, f(Omega_L u) less f(-Omega_L u), so that it is uncorrelated with
the features as r grows; for ReLU it is Gaussian. A, B and u are numbers without width, shared by
all widths and infinity.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from widthwise.network.build import slot_of, specify
from widthwise.network.dense import Affine
from widthwise.network.layer import AbstractLayer
from widthwise.network.stack import Stack, of_stack, stack_of
from widthwise.network.weight import Weight
from widthwise.scaling import AbstractScaling
from widthwise.solve import float64


class Coefficients(NamedTuple):
    """An operator's rows: coefficients A and points B."""

    a: Float[np.ndarray, "m k"]
    b: Float[np.ndarray, "m r"]


class ProjectedStart(NamedTuple):
    """Initial weights in width-free coordinates; the layers' multipliers are not in them."""

    first: Float[np.ndarray, "d r"]
    operators: tuple[Coefficients, ...]
    biases: tuple[Float[np.ndarray, " k"], ...]


def projected_start(
    network: AbstractLayer,
    scaling: AbstractScaling,
    rank: int,
    x: Float[np.ndarray, "n d"],
    n_outputs: int,
    seed: int,
) -> ProjectedStart:
    """Draws the initial weights of a stack; `x` gives the typical size of the inputs."""
    stack = stack_of(network)
    slots = [_slots(a, scaling) for a in of_stack(stack, specify(network, x.shape[1], n_outputs))]
    rng = np.random.default_rng([seed, 1])
    root = 1 / np.sqrt(rank)
    first = rng.standard_normal((x.shape[1], rank)) * root * _std(slots[0].weight)
    biases = [rng.standard_normal(rank) * root * _std(slot.bias) for slot in slots[:-1]] + [
        rng.standard_normal(n_outputs) * _std(slots[-1].bias)
    ]
    variances = _variances(stack, slots, x)
    operators = []
    with float64():
        for number, nonlinearity in enumerate(stack.between[:-1], start=1):
            points = _points(rng, rank, rank, variances[number - 1])
            drawn = rng.standard_normal((rank, rank)) * root * _std(slots[number].weight)
            kernel = dual_matrix(nonlinearity, points)
            operators.append(Coefficients(_inverse_root(kernel) @ drawn, points))
        operators.append(_readout(rng, stack, slots[-1], rank, n_outputs, variances[-1]))
    return ProjectedStart(first, tuple(operators), tuple(biases))


def _slots(affine: Affine, scaling: AbstractScaling) -> Affine:
    weight, bias = affine.weight, affine.bias
    assert isinstance(weight, Weight) and isinstance(bias, Weight)
    return Affine(slot_of(weight, scaling), slot_of(bias, scaling))


def _std(slot) -> float:
    return float(slot.std.coefficient)


def _variances(stack: Stack, slots, x) -> list[float]:
    """The typical variance of each hidden layer's pre-activations over the inputs."""
    found, level = [], float(np.mean(np.sum(np.square(x), axis=1)))
    for slot, nonlinearity in zip(slots[:-1], stack.between, strict=True):
        own = slot.weight.multiplier.coefficient * slot.weight.std.coefficient
        bias = slot.bias.multiplier.coefficient * slot.bias.std.coefficient
        variance = float(own**2 * level + bias**2)
        found.append(variance)
        level = variance
        if nonlinearity is not None:
            level = float(dual_matrix(nonlinearity, np.full((1, 1), np.sqrt(variance)))[0, 0])
    return found


def _points(rng, count: int, rank: int, variance: float) -> Float[np.ndarray, "m r"]:
    """Directions drawn evenly, as long as pre-activations of this variance are."""
    drawn = rng.standard_normal((count, rank))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * np.sqrt(variance)


def _readout(rng, stack: Stack, slots, rank: int, n_outputs: int, variance: float) -> Coefficients:
    """w in proportion to f(Z.u) - f(-Z.u), or for even f to f(Z.u) - f(Z.u')."""
    points = _points(rng, n_outputs, rank, variance)
    other, nonlinearity = -points, stack.between[-1]
    level = _gap_variance(nonlinearity, points, other)
    if not level.min() > 1e-6 * variance:
        other = _points(rng, n_outputs, rank, variance)
        level = _gap_variance(nonlinearity, points, other)
    own = _std(slots.weight) * np.diag(1 / np.sqrt(level))
    return Coefficients(np.concatenate([own, -own]), np.concatenate([points, other]))


def _gap_variance(nonlinearity, points, other) -> Float[np.ndarray, " m"]:
    """E (f(Z.u) - f(Z.u'))^2."""
    both = dual_matrix(nonlinearity, np.concatenate([points, other]))
    size, cross = np.diagonal(both), np.diagonal(both[: len(points), len(points) :])
    return size[: len(points)] + size[len(points) :] - 2 * cross


def dual_matrix(nonlinearity, points: Float[np.ndarray, "m r"]) -> Float[np.ndarray, "m m"]:
    """E f(Z.B) f(Z.B') of points among each other."""
    product = points @ points.T
    if nonlinearity is None:
        return product
    size = np.diagonal(product)
    rule = jax.vmap(jax.vmap(nonlinearity.dual, (None, 0, 0)), (0, 0, None))
    return np.asarray(rule(size, product, size))


def _inverse_root(kernel: Float[np.ndarray, "m m"]) -> Float[np.ndarray, "m m"]:
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-10 * values[-1]
    return (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
