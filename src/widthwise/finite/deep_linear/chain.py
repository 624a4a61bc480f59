"""Chains of Wishart matrices: a deep linear network's covariances, from its output down."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float
from scipy.special import multigammaln  # type: ignore[attr-defined]

Matrices = Float[np.ndarray, "s d d"]
# Of all draws, this part comes from the prior itself, so that no weight is over 1 / PRIOR.
PRIOR = 0.1
SINGULAR = 1e-12  # the smallest over the largest eigenvalue of a scale without a density
TAILS = 20  # degrees of freedom of Student's noise


class Step(NamedTuple):
    """log A of a layer in a frame: center + slope (log scale - middle) + spread noise, by entries.

    The scale's logarithm is in the same frame; noise is Student's, the same chi for all entries.
    """

    frame: Float[np.ndarray, "d d"]
    center: Float[np.ndarray, "d d"]
    slope: Float[np.ndarray, "d d"]
    middle: Float[np.ndarray, "d d"]
    spread: Float[np.ndarray, "d d"]


# One step a layer where all matrices are positive definite, otherwise the mean of what it draws.
Tilt = Sequence[Any]


class Drawn(NamedTuple):
    """Draws of each layer's matrix from the output down, of its scale, and of what it drew."""

    matrices: list[Matrices]  # the top before them
    scales: list[Matrices]
    layers: list[Matrices]
    log_ratios: Float[np.ndarray, " s"]  # of the prior's density to what was drawn from


@dataclasses.dataclass(frozen=True)
class WishartChain:
    """A_L ~ W(top / N_L, N_L), then A_l ~ W(between_l(A_{l+1}) / N_l, N_l) down to A_1.

    >>> chain = WishartChain(np.eye(2), (4, 8))
    >>> chain.draw(5, None, np.random.default_rng(0)).matrices[-1].shape
    (5, 2, 2)
    """

    top: Float[np.ndarray, "d d"]
    widths: tuple[int, ...]  # from the output down: N_L, ..., N_1
    between: tuple[Callable[[Matrices], Matrices], ...] | None = None  # without it nothing is

    def scale(self, layer: int, above: Matrices) -> Float[np.ndarray, "s e e"]:
        """Of a layer, counted from the output, below these matrices."""
        return above if layer == 0 or self.between is None else self.between[layer - 1](above)

    @functools.cached_property
    def regular(self) -> bool:
        """Whether all matrices are positive definite, so that they have densities."""
        scale = self.top[None]
        for layer, width in enumerate(self.widths):
            scale = self.scale(layer, scale)
            values = np.linalg.eigvalsh(scale[0])
            if width < len(values) or values[0] <= SINGULAR * values[-1]:
                return False
        return True

    def draw(self, count: int, tilt: Tilt | None, rng: np.random.Generator) -> Drawn:
        """Draws from the prior; or, all but a tenth of them, tilted, one step or mean a layer.

        Where matrices are singular, layers draw W(mean / N, N) instead of W(I / N, N), between
        square roots of their scales.
        """
        plain = rng.random(count) < (1 if tilt is None else PRIOR)
        draw = self._step if self.regular else self._innovation
        matrices = [np.broadcast_to(self.top, (count, *self.top.shape))]
        scales, layers, tilted = [], [], np.zeros(count)
        for layer, width in enumerate(self.widths):
            scales.append(self.scale(layer, matrices[-1]))
            own = None if tilt is None else tilt[layer]
            drawn, found, log_ratio = draw(width, scales[-1], own, plain, rng)
            matrices.append(found)
            layers.append(drawn)
            tilted += log_ratio
        log_ratios = -np.logaddexp(np.log(PRIOR), np.log1p(-PRIOR) + tilted)
        return Drawn(matrices, scales, layers, log_ratios)

    def _step(self, width: int, scale: Matrices, step: Step | None, plain, rng):
        """A layer's matrix, twice, and the logarithm of the tilted over the prior's density."""
        matrices = _wisharts(_root(scale), width, rng)
        if step is None:
            return matrices, matrices, 0.0
        logs = step.frame.T @ logarithms(scale) @ step.frame
        means = step.center + step.slope * (logs - step.middle)
        noise = np.tril(rng.standard_normal(scale.shape))
        noise = noise + np.tril(noise, -1).swapaxes(1, 2)
        noise *= np.sqrt(TAILS / rng.chisquare(TAILS, len(scale)))[:, None, None]
        moved = _exponentials(step.frame @ (means + step.spread * noise) @ step.frame.T)
        matrices = np.where(plain[:, None, None], matrices, moved)
        log_ratio = _log_step(matrices, means, step) - _log_wishart(matrices, scale, width)
        return matrices, matrices, log_ratio

    def _innovation(self, width: int, scale: Matrices, mean, plain, rng):
        """What a layer draws, its matrix, and the logarithm of the ratio of densities."""
        eye, root = np.eye(scale.shape[1]), _root(scale)
        mean = eye if mean is None else mean
        drawn = _wisharts(np.where(plain[:, None, None], eye, _root(mean)), width, rng)
        fit = np.einsum("ij,sji->s", eye - np.linalg.inv(mean), drawn)
        return drawn, root @ drawn @ root, width / 2 * (fit - np.linalg.slogdet(mean)[1])


def logarithms(matrices: np.ndarray) -> np.ndarray:
    """Of symmetric positive definite matrices."""
    values, vectors = np.linalg.eigh(matrices)
    logs = np.log(np.maximum(values, np.finfo(float).tiny))
    return (vectors * logs[..., None, :]) @ vectors.swapaxes(-1, -2)


def _exponentials(matrices: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.exp(values)[..., None, :]) @ vectors.swapaxes(-1, -2)


def _root(matrices: np.ndarray) -> np.ndarray:
    """Symmetric square roots of matrices that may be singular."""
    values, vectors = np.linalg.eigh(matrices)
    roots = np.sqrt(np.maximum(values, 0.0))
    return (vectors * roots[..., None, :]) @ vectors.swapaxes(-1, -2)


def _wisharts(roots: Matrices, width: int, rng: np.random.Generator) -> Matrices:
    """Draws of W(root root^T / width, width), by Bartlett's triangles where there can be.

    Source: muirhead1982, Theorem 3.2.14.
    """
    count, size = roots.shape[:2]
    if width < size:
        factor = rng.standard_normal((count, size, width))
    else:
        factor = np.tril(rng.standard_normal((count, size, size)), -1)
        squares = rng.chisquare(width - np.arange(size), (count, size))
        factor[:, np.arange(size), np.arange(size)] = np.sqrt(squares)
    factor = roots @ factor / np.sqrt(width)
    return factor @ factor.swapaxes(1, 2)


def _log_wishart(matrices: Matrices, scales: Matrices, width: int) -> Float[np.ndarray, " s"]:
    """Of W(scale / width, width), beside the measure |A|^-(d+1)/2 dA.

    Source: muirhead1982, Theorem 3.2.1.
    """
    size, half = matrices.shape[-1], width / 2
    fit = np.trace(np.linalg.solve(scales, matrices), axis1=1, axis2=2)
    volumes = np.linalg.slogdet(matrices)[1] - np.linalg.slogdet(scales)[1]
    constant = half * size * np.log(half) - multigammaln(half, size)
    return half * (volumes - fit) + constant


def _log_step(matrices: Matrices, means: Matrices, step: Step) -> Float[np.ndarray, " s"]:
    """Of a step's draws, beside the measure |A|^-(d+1)/2 dA.

    That measure is prod_{i<j} sinh(b_ij / 2) / (b_ij / 2) d(log A), where b_ij are differences of
    the logarithms' eigenvalues.
    """
    values, vectors = np.linalg.eigh(matrices)
    values = np.log(np.maximum(values, np.finfo(float).tiny))
    turned = step.frame.T @ vectors
    logs = (turned * values[:, None]) @ turned.swapaxes(1, 2)
    below = np.tril_indices(values.shape[1])
    fit = np.sum(((logs - means) / step.spread)[:, below[0], below[1]] ** 2, axis=1)
    free, half = len(below[0]), TAILS / 2
    density = (
        scipy.special.gammaln(half + free / 2) - scipy.special.gammaln(half)
        - free / 2 * np.log(np.pi * TAILS) - np.sum(np.log(step.spread[below]))
        - (half + free / 2) * np.log1p(fit / TAILS)
    )  # fmt: skip
    apart = np.abs(values[:, below[0]] - values[:, below[1]]) / 2
    apart = np.maximum(apart, 1e-8)
    # log (sinh x / x), which is 0 on the diagonal
    stretch = apart + np.log(-np.expm1(-2 * apart)) - np.log(2 * apart)
    return density - np.sum(stretch, axis=1)
