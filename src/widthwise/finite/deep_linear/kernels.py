"""Mixtures of Gaussian processes whose kernels are linear in a random matrix."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from widthwise.finite.deep_linear.chain import Matrices, WishartChain
from widthwise.finite.deep_linear.draws import Draws, parts, posterior_draws
from widthwise.finite.deep_linear.one_output import GIVEN
from widthwise.run import Prediction

Kernels = Callable[[Matrices], Float[np.ndarray, "s n m"]]


@dataclasses.dataclass(frozen=True)
class KernelMixture:
    """One output, N(0, kernel(A) + noise) given A, and draws from the posterior of A."""

    draws: Draws
    kernels: Kernels  # of the training rows
    targets: Float[np.ndarray, "n 1"]
    noise: float

    @classmethod
    def of(
        cls, chain: WishartChain, kernels: Kernels, targets, noise: float, samples: int, seed: int
    ) -> "KernelMixture":
        """Raises ValueError where there is no noise: a draw's kernel may be singular."""
        if targets.shape[1] != 1:
            raise ValueError(f"targets have {targets.shape[1]} columns: give one.")
        if noise == 0:
            raise ValueError("noise is 0, and kernels may be singular: give noise above 0.")

        def log_likelihood(matrices):
            pieces = parts(len(matrices), targets.size**2)
            return np.concatenate([
                _log_likelihood(kernels(matrices[part]), targets, noise) for part in pieces
            ])  # fmt: skip

        return cls(posterior_draws(chain, log_likelihood, samples, seed), kernels, targets, noise)

    def predict(self, cross: Kernels, prior: Kernels | None) -> Prediction:
        """Mean (m, 1) and covariance (m, m) at new rows, of their kernels as functions of A."""
        value, square = np.zeros(()), np.zeros(())
        most = max(cross(self.draws.matrices[:1]).shape[1:])
        for part in parts(len(self.draws.weights), most**2):
            matrices, weights = self.draws.matrices[part], self.draws.weights[part]
            beside = cross(matrices)
            lower = _lower(self.kernels(matrices), self.noise)
            half = np.linalg.solve(lower, beside.swapaxes(1, 2))  # (s, n, m)
            means = half.swapaxes(1, 2) @ np.linalg.solve(lower, self.targets[None])
            value = value + np.einsum("s,smk->mk", weights, means)
            if prior is not None:
                within = prior(matrices) - half.swapaxes(1, 2) @ half
                square = square + np.einsum(
                    "s,sij->ij", weights, within + means @ means.swapaxes(1, 2)
                )
        covariance = None if prior is None else square - value @ value.T
        return Prediction(value, covariance, GIVEN)


def _lower(kernels: np.ndarray, noise: float) -> np.ndarray:
    return np.linalg.cholesky(kernels + noise * np.eye(kernels.shape[-1]))


def _log_likelihood(kernels: np.ndarray, targets: np.ndarray, noise: float) -> np.ndarray:
    """log N(y; 0, kernel + noise) of some kernels."""
    lower = _lower(kernels, noise)
    half = np.linalg.solve(lower, targets[None])
    diagonal = np.diagonal(lower, axis1=1, axis2=2)
    fit = np.sum(half**2, axis=(1, 2))
    return -0.5 * (fit + len(targets) * np.log(2 * np.pi)) - np.sum(np.log(diagonal), axis=1)
