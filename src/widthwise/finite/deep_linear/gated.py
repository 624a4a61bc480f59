"""Globally gated deep linear networks, exact at every width."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float, Num

from widthwise.finite.deep_linear.chain import WishartChain
from widthwise.finite.deep_linear.draws import Draws
from widthwise.finite.deep_linear.kernels import KernelMixture
from widthwise.run import Prediction
from widthwise.solve.given import (
    Widths,
    given_channels,
    given_cross,
    given_noise,
    given_problem,
    given_shape,
)

LARGEST = 512  # gates to the power of the depth


@dataclasses.dataclass(frozen=True)
class GatedMixture:
    """A Gaussian process whose kernel mixes gates by a random matrix, (M^L, M^L).

    >>> gates = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> found = gated_mixture(np.eye(3), gates, np.ones((3, 1)), (8,), noise=0.5)
    >>> found.draws.matrices.shape[1:]
    (2, 2)
    """

    source: ClassVar[str] = "li2022, gated networks and their kernels"
    mixture: KernelMixture
    gates: Float[np.ndarray, "n M"]
    depth: int

    @property
    def log_evidence(self) -> float:
        """log p(y); `draws.standard_error` is its error."""
        return self.mixture.draws.log_evidence

    @property
    def draws(self) -> Draws:
        """Of the matrix that mixes the gates of all hidden layers, weighted to be the posterior's.

        Its mean at infinite width is the identity.
        """
        return self.mixture.draws

    def predict(
        self,
        cross: Num[Array | np.ndarray, "..."],
        gates: Num[Array | np.ndarray, "..."],
        prior: Num[Array | np.ndarray, "..."] | None = None,
    ) -> Prediction:
        """Mean (m, 1) and covariance (m, m) of the function at new rows.

        Args:
            cross: kernel (m, n) of the new rows' inputs and those of the training rows.
            gates: (m, M), of the new rows.
            prior: kernel (m, m) of the new rows' inputs; without it, only the mean is found.

        Raises ValueError for shapes that do not fit.
        """
        cross = given_cross(cross, len(self.gates))
        gates = given_shape("gates", gates, (len(cross), self.gates.shape[1]))
        beside = functools.partial(_mix, gates, self.gates, cross, self.depth)
        if prior is None:
            return self.mixture.predict(beside, None)
        prior = given_shape("prior", prior, (len(cross), len(cross)))
        own = functools.partial(_mix, gates, gates, prior, self.depth)
        return self.mixture.predict(beside, own)


def gated_mixture(
    kernel: Num[Array | np.ndarray, "..."],
    gates: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    widths: Widths,
    noise: float,
    *,
    samples: int = 4000,
    seed: int = 0,
) -> GatedMixture:
    """The posterior of a globally gated deep linear network with one output, by weighted draws.

    >>> gates = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> found = gated_mixture(np.eye(3), gates, np.array([[1.0], [2.0], [1.0]]), (4, 8), noise=0.5)
    >>> bool(found.draws.standard_error < 0.05)
    True

    Each layer but the first has M matrices of weights, one a gate, and multiplies its inputs h(x)
    by their mean weighted with fixed g(x): sum_m g_m(x) W_m h(x) / sqrt(M), variances one over the
    fan-in; so does the first. Outputs are N(0, kernel(A)) given a matrix A of gates, whose size is
    M to the power of the depth, at most 512: the end of a chain of Wishart matrices. Where data are
    strong, draws reach the posterior of small matrices only, and others are refused: use
    `proportional_blocks`.

    Args:
        kernel: (n, n), x . x' / N_0 of the training rows.
        gates: (n, M), g(x) of the training rows.
        targets: (n, 1).
        widths: of the hidden layers, from the inputs to the output.
        noise: variance of the noise on the targets, above 0.
        samples, seed: of the draws.

    Raises ValueError for shapes and widths that do not fit, and where fewer than 100 draws count.

    Source: li2022, gated networks and their kernels.
    """
    kernel, targets = given_problem(kernel, targets)
    count = np.shape(gates)[1] if np.ndim(gates) == 2 else 1
    gates, finite = given_shape("gates", gates, (len(kernel), count)), given_channels(widths)
    if count ** len(finite) > LARGEST:
        raise ValueError(
            f"{count} gates and {len(finite)} hidden layers need matrices of {count}^{len(finite)} "
            f"rows: give fewer, for {LARGEST} at most."
        )
    eye = np.eye(count)
    wider = (lambda matrices: np.kron(matrices, eye),) * (len(finite) - 1)
    chain = WishartChain(eye, finite[::-1], wider)
    kernels = functools.partial(_mix, gates, gates, kernel, len(finite))
    mixture = KernelMixture.of(chain, kernels, targets, given_noise(noise), samples, seed)
    return GatedMixture(mixture, gates, len(finite))


def _mix(first, second, kernel, depth: int, matrices: np.ndarray) -> np.ndarray:
    """M^-L g^L(x)^T A g^L(x') (g . g' / M) kernel, where g^L is the L-fold outer product."""
    count = first.shape[1]
    left, right = _power(first, depth), _power(second, depth)
    mixed = left @ matrices @ right.T / count**depth
    return mixed * (first @ second.T / count * kernel)


def _power(gates: np.ndarray, depth: int) -> Float[np.ndarray, "n G"]:
    """Each row's depth-fold outer product with itself."""
    found = np.ones((len(gates), 1))
    for _ in range(depth):
        found = np.einsum("ni,nm->nim", found, gates).reshape(len(gates), -1)
    return found
