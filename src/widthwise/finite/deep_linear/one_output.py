"""Deep linear networks with one output: a Gaussian process whose scale is random."""

import dataclasses
import math
from typing import ClassVar

import numpy as np
import scipy.special
from jaxtyping import Array, Float, Num

from widthwise.finite.deep_linear.line import line_rule, log_sum
from widthwise.finite.deep_linear.meijer import log_meijer
from widthwise.run import Prediction
from widthwise.solve.given import Widths, given_cross, given_shape, given_widths
from widthwise.solve.turned import Turned

GIVEN = "the data, with Gaussian noise, over weights of a deep linear network of these widths"
SMALLEST = -600.0  # logarithm below which a variance is as good as 0, without overflow
REACH = 8  # standard deviations of the prior in which the posterior is first looked for


@dataclasses.dataclass(frozen=True)
class ScaleMixture:
    """A Gaussian process with kernel Q K, and the posterior of Q as nodes and weights.

    >>> found = scale_mixture(np.eye(2), np.ones((2, 1)), (16,), noise=0.5)
    >>> round(float(found.weights.sum()), 12)
    1.0
    """

    source: ClassVar[str] = (
        "hanin2023, evidence and posterior without noise; "
        "bassetti2024, integral representation of the prior"
    )
    problem: Turned
    widths: tuple[int, ...]  # those below infinity
    log_evidence: float
    scales: Float[np.ndarray, " q"]
    weights: Float[np.ndarray, " q"]  # their sum is one

    def moment(self, power: float) -> float:
        """E[Q^power | y].

        >>> found = scale_mixture(np.eye(2), np.ones((2, 1)), (4,))
        >>> round(found.moment(1), 6)
        1.107039

        Without noise a ratio of two Meijer G functions.
        """
        if self.problem.noise > 0:
            return float(self.weights @ self.scales**power)
        log_z, parameters = _meijer_of(self.problem, self.widths)
        moved = np.append(0.0, parameters[1:] + power)
        ratio = log_meijer(log_z, moved) - log_meijer(log_z, parameters)
        return float(np.exp(ratio - power * np.sum(np.log(np.array(self.widths) / 2))))

    def predict(
        self,
        cross: Num[Array | np.ndarray, "..."],
        prior: Num[Array | np.ndarray, "..."] | None = None,
    ) -> Prediction:
        """Mean (m, 1) and covariance (m, m) of the function at new rows.

        >>> found = scale_mixture(np.eye(2), np.ones((2, 1)), (16,), noise=1.0)
        >>> found.predict(np.eye(2)[:1]).value.round(3).tolist()
        [[0.478]]

        Args:
            cross: kernel (m, n) of the new rows and the training rows.
            prior: kernel (m, m) of the new rows; without it, only the mean is found.

        Without noise the mean is that of the Gaussian process, whatever the widths. Raises
        ValueError for shapes that do not fit.
        """
        problem = self.problem
        turned = given_cross(cross, len(problem.values)) @ problem.vectors
        # (Q K + noise)^-1 Q in the eigenvectors, a row for each Q
        shrinks = self.scales[:, None] / (self.scales[:, None] * problem.values + problem.noise)
        mean = self.weights @ shrinks
        value = turned @ (mean[:, None] * problem.targets)
        if prior is None:
            return Prediction(value, None, GIVEN)
        prior = given_shape("prior", prior, (len(turned), len(turned)))
        explained = (self.weights * self.scales) @ shrinks
        within = (self.weights @ self.scales) * prior - (turned * explained) @ turned.T
        moved = np.sqrt(self.weights)[:, None] * (shrinks - mean)
        between = turned @ (moved * problem.targets[:, 0]).T
        return Prediction(value, within + between @ between.T, GIVEN)


def scale_mixture(
    kernel: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    widths: Widths,
    noise: float = 0.0,
) -> ScaleMixture:
    """The posterior of a deep linear network with one output, exact at every width.

    >>> found = scale_mixture(np.eye(3), np.array([[2.0], [-2.0], [2.0]]), (8, 8), noise=0.1)
    >>> round(found.log_evidence, 4), round(found.moment(1), 4)
    (-7.9659, 1.98)

    Outputs are N(0, Q K) given the scale Q, a product of chi^2(N) / N over hidden layers of N
    units; so the posterior is one-dimensional, and is known by nodes and weights to about 12
    digits.

    Args:
        kernel: (n, n), the infinitely wide network's NNGP kernel of the training rows.
        targets: (n, 1).
        widths: of the hidden layers, in any order; infinite ones change nothing, and none is the
            Gaussian process.
        noise: variance of the noise on the targets. Without it the evidence is a Meijer G function.

    Raises ValueError for shapes and widths that do not fit, and for a singular kernel or targets
    of zeros without noise.

    Source: hanin2023, evidence and posterior without noise; bassetti2024, integral representation
    of the prior.
    """
    problem, finite = one_output_of(kernel, targets, noise), given_widths(widths)
    log_scales, logs = _posterior(problem, finite)
    total = log_sum(logs)
    return ScaleMixture(
        problem, finite, _closed_form(problem, finite) if problem.noise == 0 else total,
        np.exp(log_scales), np.exp(logs - total),
    )  # fmt: skip


def one_output_of(kernel, targets, noise: float) -> Turned:
    """The problem; raises ValueError where there is not one output."""
    problem = Turned.of(kernel, targets, noise)
    if problem.targets.shape[1] != 1:
        raise ValueError(
            f"targets have {problem.targets.shape[1]} columns: give one, or use outputs_mixture."
        )
    return problem


def log_evidence(problem: Turned, widths: tuple[int, ...]) -> float:
    """log p(y) of a problem with one output: closed without noise, or by the nodes."""
    if problem.noise == 0:
        return _closed_form(problem, widths)
    return log_sum(_posterior(problem, widths)[1])


def _posterior(problem: Turned, widths: tuple[int, ...]):
    """Nodes of log Q, and the logarithms of what they weigh in the evidence."""
    power = problem.targets[:, 0] ** 2

    def log_likelihood(log_scale):
        levels = problem.log_levels(log_scale)
        fit = power * np.exp(-np.maximum(levels, SMALLEST))
        return -0.5 * np.sum(fit + levels + math.log(2 * math.pi), axis=1)

    if not widths:
        return np.zeros(1), log_likelihood(np.zeros(1))
    halves = np.array(widths) / 2
    units, constant = np.sum(np.log(halves)), np.sum(scipy.special.gammaln(halves))

    def log_density(log_scale):
        return log_meijer(log_scale + units, halves) - constant + log_likelihood(log_scale)

    center = float(np.sum(scipy.special.psi(halves)) - units)
    reach = REACH * math.sqrt(np.sum(scipy.special.polygamma(1, halves)))
    return line_rule(log_density, center - reach, center + reach)


def _closed_form(problem: Turned, widths: tuple[int, ...]) -> float:
    """log p(y) without noise."""
    rows, halves = len(problem.values), np.array(widths) / 2
    log_z, parameters = _meijer_of(problem, widths)
    return float(
        log_meijer(log_z, parameters)
        - 0.5 * np.sum(np.log(2 * np.pi * problem.values))
        + np.sum(rows / 2 * np.log(halves) - scipy.special.gammaln(halves))
    )


def _meijer_of(problem: Turned, widths: tuple[int, ...]):
    """log z and the parameters of Meijer's function, of which the first is 0."""
    fit = np.sum(problem.targets[:, 0] ** 2 / problem.values) / 2
    if fit == 0:
        raise ValueError("targets are all 0 and noise is 0: give noise above 0.")
    halves = np.array(widths) / 2
    return np.log(fit) + np.sum(np.log(halves)), np.append(0.0, halves - len(problem.values) / 2)
