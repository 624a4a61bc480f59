"""Posteriors of Wishart chains by importance sampling, tilted towards the data step by step."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Float

from widthwise.finite.deep_linear.chain import Matrices, Step, Tilt, WishartChain, logarithms
from widthwise.finite.deep_linear.line import log_sum

PILOT = 1000  # draws of each step of the tilting
FOR_EACH = 20  # more of them for each entry of a matrix that is fitted
PART = 0.1  # of them the steps keep effective
STEPS, STAYS = 50, 6  # all, and those at the same power after which there is no hope
SHRINK = 0.05  # of a mean is the prior's
WIDER = 1.1  # times the variance that draws have, so that tails are reached
SMALLEST = 1e-12  # of a variance of logarithms
ROOM = 1 << 22  # numbers in an array that has some for each draw
FEWEST = 100.0  # effective draws below which there is no answer

LogLikelihood = Callable[[Matrices], Float[np.ndarray, " s"]]


class Draws(NamedTuple):
    """Draws of a chain's last matrix, weighted to be the posterior's; weights' sum is one."""

    matrices: Matrices
    weights: Float[np.ndarray, " s"]
    log_evidence: float
    standard_error: float  # of log_evidence
    effective: float  # how many independent draws of the posterior are worth as much
    layers: list[Matrices]  # of each layer, from the output down to `matrices`


def posterior_draws(
    chain: WishartChain, log_likelihood: LogLikelihood, samples: int, seed: int
) -> Draws:
    """Draws from a chain whose layers are tilted to where the posterior is.

    >>> chain = WishartChain(np.eye(1), (8,))
    >>> found = posterior_draws(chain, lambda a: -a[:, 0, 0], 10_000, 0)
    >>> bool(abs(found.log_evidence + 4 * np.log(5 / 4)) < 4 * found.standard_error)
    True

    The likelihood is raised to a power that grows to one in steps; at each step draws move to the
    mean and the spread of those before, weighted. What is not close after that shows in weights.

    Raises ValueError where fewer than 100 draws would be effective.

    Source: owen2000, defensive mixtures; delmoral2006, tempering.
    """
    rng = np.random.default_rng(seed)
    tilt = _tilted(chain, log_likelihood, rng)
    drawn = chain.draw(samples, tilt, rng)
    last = drawn.matrices[-1]
    logs = log_likelihood(last) + drawn.log_ratios
    total = log_sum(logs)
    weights = np.exp(logs - total)
    effective = 1 / float(np.sum(weights**2))
    if effective < FEWEST:
        raise ValueError(
            f"Of {samples} draws only {effective:.0f} count: draw more (samples=...), or use the "
            "proportional limit."
        )
    error = np.sqrt(max(1 / effective - 1 / samples, 0.0))
    return Draws(
        last, weights, float(total - np.log(samples)), float(error), effective,
        drawn.matrices[1:],
    )  # fmt: skip


def _tilted(
    chain: WishartChain, log_likelihood: LogLikelihood, rng: np.random.Generator
) -> Tilt | None:
    """A tilt to where the posterior is."""
    tilt, power, count, stays = None, 0.0, PILOT, 0
    for _ in range(STEPS):
        drawn = chain.draw(count, tilt, rng)
        levels = log_likelihood(drawn.matrices[-1])
        before, power = power, _power(levels, drawn.log_ratios, power)
        stays = stays + 1 if power == before else 0
        weights = scipy.special.softmax(power * levels + drawn.log_ratios)
        fit = _step if chain.regular else _mean
        tilt = [fit(*both, weights) for both in zip(drawn.scales, drawn.layers, strict=True)]
        if power == 1:
            return tilt
        if stays == STAYS:
            break
        if chain.regular:
            sizes = [found.shape[1] for found in drawn.layers]
            count = PILOT + FOR_EACH * sum(size * (size + 1) // 2 for size in sizes)
    raise ValueError(
        "Draws do not reach the posterior, whose matrices are too many or too large for the data: "
        "give fewer layers, outputs, positions or gates, more noise, or use the proportional limit."
    )


def _step(scales: Matrices, matrices: Matrices, weights: np.ndarray) -> Step:
    """The regression of a layer's logarithm on its scale's, entry by entry in the mean's frame."""
    frame = np.linalg.eigh(np.einsum("s,sij->ij", weights, matrices))[1]
    before, after = (frame.T @ logarithms(found) @ frame for found in (scales, matrices))
    middle, center = (np.einsum("s,sij->ij", weights, found) for found in (before, after))
    before, after = before - middle, after - center
    power = np.einsum("s,sij->ij", weights, before**2)
    slope = np.einsum("s,sij->ij", weights, before * after) / np.maximum(power, SMALLEST)
    left = np.einsum("s,sij->ij", weights, (after - slope * before) ** 2)
    return Step(frame, center, slope, middle, np.sqrt(WIDER * np.maximum(left, SMALLEST)))


def _mean(scales: Matrices, matrices: Matrices, weights: np.ndarray) -> np.ndarray:
    """The mean of what a layer draws, and a little of the prior's, so that it has an inverse."""
    mean = np.einsum("s,sij->ij", weights, matrices)
    return SHRINK * np.eye(len(mean)) + (1 - SHRINK) * mean


def _power(levels: np.ndarray, log_ratios: np.ndarray, before: float) -> float:
    """The largest power of the likelihood that keeps PART of the draws effective."""

    def short(power: float) -> float:
        logs = power * levels + log_ratios
        both = 2 * log_sum(logs) - log_sum(2 * logs)
        return both - np.log(PART * len(levels))

    if short(1.0) >= 0:
        return 1.0
    if short(before) <= 0:  # the tilt was too rough: stay, and take the mean again
        return before
    return float(scipy.optimize.brentq(short, before, 1.0))  # type: ignore[arg-type]


def parts(count: int, size: int) -> list[slice]:
    """Draws that are worked on at once, where each needs so many numbers."""
    at_once = max(1, ROOM // size)
    return [slice(start, start + at_once) for start in range(0, count, at_once)]
