"""Chains of Wishart matrices: a deep linear network's covariances, from its output down."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

Matrices = Float[np.ndarray, "s d d"]
# Of all draws, this part comes from the prior itself, so that no weight is over 1 / PRIOR.
PRIOR = 0.1


class Tilt(NamedTuple):
    """Where draws are moved: the mean of what each layer draws, and 1 / variance of the data."""

    means: tuple[Float[np.ndarray, "d d"], ...]
    tightness: float


class Drawn(NamedTuple):
    """Draws of a chain's last matrix, and of what each layer drew."""

    matrices: Matrices
    layers: list[Matrices]
    log_ratios: Float[np.ndarray, " s"]  # of the prior's density to what was drawn from


@dataclasses.dataclass(frozen=True)
class WishartChain:
    """A_L ~ W(top / N_L, N_L), then A_l ~ W(between(A_{l+1}) / N_l, N_l) down to A_1.

    >>> chain = WishartChain(np.eye(2), (4, 8))
    >>> chain.draw(5, chain.untilted(), np.random.default_rng(0)).matrices.shape
    (5, 2, 2)
    """

    top: Float[np.ndarray, "d d"]
    widths: tuple[int, ...]  # from the output down: N_L, ..., N_1
    between: Callable[[Matrices], Matrices] = lambda matrices: matrices

    def scales(self, means: Sequence[np.ndarray] | None = None) -> list[Float[np.ndarray, "d d"]]:
        """Each layer's scale where the layers above are at these means, or at the prior's."""
        found = [self.top]
        for layer in range(len(self.widths) - 1):
            above = found[-1] if means is None else means[layer]
            found.append(self.between(above[None])[0])
        return found[: len(self.widths)]

    @property
    def regular(self) -> bool:
        """Whether all matrices are positive definite, so that they have densities."""
        return all(n >= len(s) for n, s in zip(self.widths, self.scales(), strict=True))

    def untilted(self) -> Tilt:
        """The prior."""
        scales = self.scales()
        return Tilt(tuple(scales if self.regular else [np.eye(len(s)) for s in scales]), 0.0)

    def draw(self, count: int, tilt: Tilt, rng: np.random.Generator) -> Drawn:
        """Draws, of which all but a tenth are tilted.

        In logarithms and for wide layers a chain is a random walk of variances 1 / N, and data
        know its end with a variance; so tilted layers are drawn as a walk's steps to a known end
        are, Wishart with the mean and the freedom of those. Where matrices are singular, layers
        draw W(mean / N, N) instead of W(I / N, N), between square roots of their scales.
        """
        plain = rng.random(count) < PRIOR
        matrices = np.broadcast_to(self.top, (count, *self.top.shape))
        draw = self._step if self.regular else self._innovation
        layers, tilted = [], np.zeros(count)
        for layer in range(len(self.widths)):
            scale = matrices if layer == 0 else self.between(matrices)
            drawn, matrices, log_ratio = draw(layer, scale, tilt, plain, rng)
            layers.append(drawn)
            tilted += log_ratio
        return Drawn(matrices, layers, -np.logaddexp(np.log(PRIOR), np.log1p(-PRIOR) + tilted))

    def _step(self, layer: int, scale: Matrices, tilt: Tilt, plain, rng):
        """A layer's matrix, twice, and the logarithm of the tilted over the prior's density."""
        width, mean = self.widths[layer], tilt.means[layer]
        left = sum(1 / other for other in self.widths[layer + 1 :])
        # of the walk's way to its end, this step's part
        part = tilt.tightness / (tilt.tightness * (1 + width * left) + width)
        freedom = width / (1 - part)
        apart = _apply(np.log, scale) - _apply(np.log, self.scales(tilt.means)[layer])
        means = _apply(np.exp, _apply(np.log, mean) + (1 - part) * apart)
        roots = _root(np.where(plain[:, None, None], scale, means))
        matrices = _wisharts(roots, np.where(plain, width, freedom), rng)
        log_ratio = _log_density(matrices, means, freedom) - _log_density(matrices, scale, width)
        return matrices, matrices, log_ratio

    def _innovation(self, layer: int, scale: Matrices, tilt: Tilt, plain, rng):
        """What a layer draws, its matrix, and the logarithm of the ratio of densities."""
        width, mean = self.widths[layer], tilt.means[layer]
        eye, root = np.eye(len(mean)), _root(scale)
        roots = np.where(plain[:, None, None], eye, _root(mean))
        drawn = _wisharts(roots, np.full(len(plain), width), rng)
        fit = np.einsum("ij,sji->s", eye - np.linalg.inv(mean), drawn)
        return drawn, root @ drawn @ root, width / 2 * (fit - np.linalg.slogdet(mean)[1])


def _apply(function: Callable[[np.ndarray], np.ndarray], matrices: np.ndarray) -> np.ndarray:
    """A function of symmetric matrices, of their eigenvalues."""
    values, vectors = np.linalg.eigh(matrices)
    if function is np.log:
        values = np.maximum(values, np.finfo(float).tiny)
    return (vectors * function(values)[..., None, :]) @ vectors.swapaxes(-1, -2)


def _root(matrices: np.ndarray) -> np.ndarray:
    """Symmetric square roots of matrices that may be singular."""
    values, vectors = np.linalg.eigh(matrices)
    roots = np.sqrt(np.maximum(values, 0.0))
    return (vectors * roots[..., None, :]) @ vectors.swapaxes(-1, -2)


def _wisharts(roots: Matrices, freedom: np.ndarray, rng: np.random.Generator) -> Matrices:
    """Draws of W(root root^T / freedom, freedom), by Bartlett's triangles where there can be.

    Source: muirhead1982, Theorem 3.2.14.
    """
    count, size = roots.shape[:2]
    if freedom.min() < size:  # whole, and one for all
        factor = rng.standard_normal((count, size, int(freedom[0])))
    else:
        factor = np.tril(rng.standard_normal((count, size, size)), -1)
        squares = rng.chisquare(freedom[:, None] - np.arange(size))
        factor[:, np.arange(size), np.arange(size)] = np.sqrt(squares)
    factor = roots @ factor / np.sqrt(freedom)[:, None, None]
    return factor @ factor.swapaxes(1, 2)


def _log_density(matrices: Matrices, means: np.ndarray, freedom: float) -> Float[np.ndarray, " s"]:
    """Of W(mean / freedom, freedom), but for a factor that all of them share.

    Source: muirhead1982, Theorem 3.2.1.
    """
    size = matrices.shape[-1]
    fit = np.trace(np.linalg.solve(means, matrices), axis1=1, axis2=2)
    volumes = np.linalg.slogdet(matrices)[1] - np.linalg.slogdet(means)[1]
    constant = freedom * size / 2 * np.log(freedom / 2) - scipy.special.multigammaln(
        freedom / 2, size
    )
    return freedom / 2 * (volumes - fit) + constant
