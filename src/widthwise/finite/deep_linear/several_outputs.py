"""Deep linear networks with several outputs, whose covariance is random."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from widthwise.finite.deep_linear.chain import WishartChain
from widthwise.finite.deep_linear.draws import Draws, parts, posterior_draws
from widthwise.finite.deep_linear.one_output import GIVEN
from widthwise.run import OutputsPrediction
from widthwise.solve.given import Widths, given_cross, given_shape, given_widths
from widthwise.solve.turned import Turned


@dataclasses.dataclass(frozen=True)
class OutputsMixture:
    """Gaussian processes of covariance A x K, and draws from the posterior of A, (k, k).

    >>> found = outputs_mixture(np.eye(3), np.ones((3, 2)), (8,), noise=0.5, samples=500)
    >>> found.draws.matrices.shape
    (500, 2, 2)
    """

    source: ClassVar[str] = "bassetti2024, integral representation of the prior"
    problem: Turned
    draws: Draws

    @property
    def log_evidence(self) -> float:
        """log p(y); `draws.standard_error` is its error."""
        return self.draws.log_evidence

    def mean(self) -> Float[np.ndarray, "k k"]:
        """E[A | y].

        >>> found = outputs_mixture(np.eye(3), np.ones((3, 2)), (math.inf,), noise=0.5)
        >>> found.mean().round(6).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        return np.einsum("s,sij->ij", self.draws.weights, self.draws.matrices)

    def predict(
        self,
        cross: Num[Array | np.ndarray, "..."],
        variance: Num[Array | np.ndarray, "..."] | None = None,
    ) -> OutputsPrediction:
        """Mean (m, k) and, at each new row, covariance (m, k, k) of the function's outputs.

        >>> found = outputs_mixture(np.eye(3), np.ones((3, 2)), (math.inf,), noise=1.0)
        >>> found.predict(np.eye(3)[:1]).value.round(6).tolist()
        [[0.5, 0.5]]

        Args:
            cross: kernel (m, n) of the new rows and the training rows.
            variance: kernel (m,) of each new row with itself; without it, only the mean is found.

        Raises ValueError for shapes that do not fit.
        """
        problem, draws = self.problem, self.draws
        turned = given_cross(cross, len(problem.values)) @ problem.vectors
        new, outputs = len(turned), problem.targets.shape[1]
        if variance is not None:
            variance = given_shape("variance", variance, (new,))
        value, square = np.zeros((new, outputs)), np.zeros((new, outputs, outputs))
        for part in parts(len(draws.weights), outputs * (outputs * new + len(problem.values))):
            weights, (scales, frames) = draws.weights[part], np.linalg.eigh(draws.matrices[part])
            scales = np.maximum(scales, 0.0)[:, None]
            # (a K + noise)^-1 a for each eigenvalue a of A, in the eigenvectors of K and of A
            shrinks = scales / (scales * problem.values[:, None] + problem.noise)
            means = turned @ (shrinks * (problem.targets @ frames))
            means = means @ frames.swapaxes(1, 2)
            value += np.einsum("s,smk->mk", weights, means)
            if variance is not None:
                left = scales * (variance[:, None] - turned**2 @ shrinks)
                square += np.einsum(
                    "s,sid,smd,sjd->mij", weights, frames, left, frames, optimize=True
                )
                square += np.einsum("s,smi,smj->mij", weights, means, means, optimize=True)
        if variance is None:
            return OutputsPrediction(value, None, GIVEN)
        return OutputsPrediction(value, square - value[:, :, None] * value[:, None, :], GIVEN)


def outputs_mixture(
    kernel: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    widths: Widths,
    noise: float = 0.0,
    *,
    samples: int = 4000,
    seed: int = 0,
) -> OutputsMixture:
    """The posterior of a deep linear network with k outputs, by weighted draws of their covariance.

    >>> y = np.array([[1.0, -1.0], [2.0, -2.0], [1.0, 1.0]])
    >>> found = outputs_mixture(np.eye(3), y, (3, 5), noise=0.3)
    >>> bool(found.draws.standard_error < 0.05), bool(found.draws.effective > 500)
    (True, True)

    Outputs are N(0, A x K) given A, which is the end of a chain of Wishart matrices, one a hidden
    layer. Draws come from a chain tilted towards the data; `draws.standard_error` is the Monte
    Carlo error of the log evidence, and `draws.effective` how many draws count. One decomposition
    of the kernel, then 2 n k^2 operations a draw. How to tilt is learned for each of k (k + 1) / 2
    entries in each layer, which works for about 100 in all where data are strong: ten outputs
    behind one hidden layer, five behind several.

    Args:
        kernel: (n, n), the infinitely wide network's NNGP kernel of the training rows.
        targets: (n, k).
        widths: of the hidden layers, from the inputs to the outputs; infinite ones change nothing.
        noise: variance of the noise on the targets; above 0 where a width is below k.
        samples, seed: of the draws.

    Raises ValueError for shapes and widths that do not fit, for a singular covariance without
    noise, and where fewer than 100 draws count.

    Source: bassetti2024, integral representation of the prior.
    """
    return mixture_of(Turned.of(kernel, targets, noise), given_widths(widths), samples, seed)


def mixture_of(problem: Turned, widths: tuple[int, ...], samples: int, seed: int) -> OutputsMixture:
    """`outputs_mixture` of a kernel that is decomposed, and of finite widths."""
    outputs = problem.targets.shape[1]
    if problem.noise == 0 and min(widths, default=outputs) < outputs:
        raise ValueError(
            f"A hidden layer has {min(widths)} units for {outputs} outputs and noise is 0, so that "
            "targets have no density: give noise above 0."
        )
    chain = WishartChain(np.eye(outputs), widths[::-1])

    def log_likelihood(matrices):
        pieces = parts(len(matrices), outputs * len(problem.values))
        return np.concatenate([_log_likelihood(problem, matrices[part]) for part in pieces])

    return OutputsMixture(problem, posterior_draws(chain, log_likelihood, samples, seed))


def _log_likelihood(problem: Turned, matrices: np.ndarray) -> np.ndarray:
    """log N(vec Y; 0, A x K + noise) of some A."""
    scales, frames = np.linalg.eigh(matrices)
    levels = np.maximum(scales, 0.0)[:, None] * problem.values[:, None] + problem.noise
    fit = (problem.targets @ frames) ** 2 / levels
    return -0.5 * np.sum(fit + np.log(2 * math.pi * levels), axis=(1, 2))


class FourthMoments(NamedTuple):
    """Of the prior of A: E[A_11^2], E[A_11 A_22] and E[A_12^2]."""

    same: float
    each: float
    cross: float


def fourth_moments(widths: Widths) -> FourthMoments:
    """How outputs of a random deep linear network depend on each other.

    >>> found = fourth_moments((3, 5))
    >>> round(found.same, 4), round(found.each, 4), round(found.cross, 4)
    (2.3333, 1.1333, 0.6)

    For one input x, E[f_1^4] / k(x, x)^2 is 3 same, and E[f_1^2 f_2^2] / k(x, x)^2 is each + 2
    cross - which are 3 and 1 at infinite width.

    Source: bassetti2024, integral representation of the prior; muirhead1982, section 3.2.
    """
    each, cross = 1.0, 0.0
    for width in given_widths(widths):
        each, cross = each + 2 * cross / width, cross + (each + cross) / width
    return FourthMoments(math.prod(1 + 2 / width for width in given_widths(widths)), each, cross)
