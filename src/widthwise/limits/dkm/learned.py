"""What a deep kernel machine learns on rows of features, and what predicts from it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from widthwise.kernels.rules import padded
from widthwise.limits.bound import Bound, InducingFactor
from widthwise.limits.dkm.extend import Extension, Known, check_variances, extend
from widthwise.limits.dkm.full import ON_ALL_ROWS, Optimum, best_grams, posed, restarted
from widthwise.limits.dkm.layers import GramLayer, gram_layers
from widthwise.limits.dkm.minimise import MOST
from widthwise.limits.dkm.sparse import rows_of, summary_of, through
from widthwise.network.layer import AbstractLayer
from widthwise.run import AbstractState, Prediction, check_columns
from widthwise.scaling import AbstractScaling
from widthwise.solve import Factor, blocks_of, cholesky, float64

TOLERANCE = 1e-5  # of the gradient, over that at the prior's Gram matrices
BLOCK = 512  # new rows that are carried through the layers at once
GIVEN = "the data, with Gaussian noise, and the Gram matrices that the data taught"


class Learned(NamedTuple):
    """The Gram matrices that are best, and what predicts by them."""

    optimum: Optimum
    state: "DeepKernelState"


def learn(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    scaling: AbstractScaling,
    nus: tuple[float, ...],
    noise: float,
    inducing: Float[np.ndarray, "m d"] | None = None,
    start: Learned | None = None,
    tolerance: float = TOLERANCE,
    most: int = MOST,
) -> Learned:
    """A deep kernel machine on rows and targets, with variances and noise as they are.

    >>> net, x = Dense() >> Relu() >> Readout(), np.eye(3)
    >>> few = learn(net, x, x[:, :1], scaling=MuP(), nus=(10.0,), noise=0.1)
    >>> learn(net, x, x[:, :1], scaling=MuP(), nus=(1.0,), noise=0.1, start=few).state.noise
    0.1

    Args:
        nus: one for each hidden layer; `times` is in them.
        inducing: rows that stand for all; None takes all.
        start: what was learned with other nus on the same rows, from whose Gram matrices it goes
            on: a grid of nus is fastest from the largest down.
        tolerance: of the gradient's norm, over that at the prior's Gram matrices.
        most: iterations of L-BFGS.

    Raises NotSolvable, naming the layer, where a Gram matrix is singular.

    Source: yang2023theory, section 4; titsias2009, variational lower bound.
    """
    layers = gram_layers(network)
    own = x if inducing is None else inducing
    fixed = posed(network, own, y, scaling=scaling, nus=nus, noise=noise)
    rows = None if inducing is None else rows_of(inducing, x, y)
    optimum = best_grams(
        layers, fixed, tolerance=tolerance, most=most,
        start=None if start is None else restarted(layers, start.optimum, fixed),
        objective=ON_ALL_ROWS if rows is None else through(rows),
    )  # fmt: skip
    known = Known(fixed.own, own, optimum.passage.roots, optimum.passage.whitened)
    output = optimum.passage.output
    if rows is None:
        factor = cholesky(output + noise * np.eye(len(y)))
        return Learned(optimum, DeepKernelState(layers, known, factor.solve(y), factor, noise))
    prior = cholesky(output)
    with float64():
        found: Any = jax.tree.map(np.asarray, summary_of(layers, known, prior.lower, rows.blocks))
    factor, weights = Bound.of(found, y).posterior(prior, noise)
    return Learned(optimum, DeepKernelState(layers, known, weights, factor, noise))


@dataclasses.dataclass(frozen=True)
class DeepKernelState(AbstractState):
    """The learned Gram matrices, the factorised kernel that they give, the weights of the mean, all
    of the rows that stand for the data."""

    layers: tuple[GramLayer, ...]
    known: Known
    weights: Float[np.ndarray, "n k"]
    factor: Factor | InducingFactor
    noise: float

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        check_columns(x, self.known.x.shape[1])
        if not covariance:
            value = np.empty((len(x), self.weights.shape[1]))
            for part in blocks_of(len(x), BLOCK):
                cross = np.asarray(self.extended(x[part]).cross)
                value[part] = cross[: len(x[part])] @ self.weights
            return Prediction(value, None, GIVEN)
        found = self.extended(x)
        cross = np.asarray(found.cross)[: len(x)]
        half = self.factor.half(cross.T)
        among = np.asarray(found.among)[: len(x), : len(x)] - half.T @ half
        return Prediction(cross @ self.weights, among, GIVEN)

    def extended(self, x: Float[np.ndarray, "m d"]) -> Extension:
        """New rows, and copies of the last up to a power of two, carried through all layers."""
        with float64():
            found = extend(self.layers, self.known, padded(x))
        check_variances(self.layers, self.known, found)
        return found
