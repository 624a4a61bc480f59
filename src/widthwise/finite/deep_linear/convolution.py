"""Deep linear convolutional networks behind a dense readout, exact at every number of channels."""

import dataclasses
import functools
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Array, Float, Num

from widthwise.finite.deep_linear.chain import WishartChain
from widthwise.finite.deep_linear.draws import Draws
from widthwise.finite.deep_linear.filters import Filter
from widthwise.finite.deep_linear.kernels import KernelMixture
from widthwise.run import Prediction
from widthwise.solve.given import Widths, given_channels, given_noise, given_shape, given_targets

Padding = Literal["SAME", "CIRCULAR"]


@dataclasses.dataclass(frozen=True)
class ConvolutionMixture:
    """A Gaussian process whose kernel mixes the inputs' positions by a random matrix.

    >>> local = np.einsum("pi,qj->ijpq", np.eye(4)[:3], np.eye(4)[:3])
    >>> shape = {"grid": (4,), "filter_shape": (3,)}
    >>> found = convolution_mixture(local, np.ones((3, 1)), (8,), **shape, noise=1.0)
    >>> found.mean().shape
    (4, 4)
    """

    source: ClassVar[str] = "bassetti2024, convolutional layers"
    mixture: KernelMixture

    @property
    def log_evidence(self) -> float:
        """log p(y); `draws.standard_error` is its error."""
        return self.mixture.draws.log_evidence

    @property
    def draws(self) -> Draws:
        """Of the matrix (S, S) that mixes positions, weighted to be the posterior's."""
        return self.mixture.draws

    def mean(self) -> Float[np.ndarray, "S S"]:
        """The posterior's mean of the matrix that mixes positions.

        At infinite width and with circular padding it is I / S.
        """
        return np.einsum("s,sij->ij", self.draws.weights, self.draws.matrices)

    def predict(
        self,
        cross: Num[Array | np.ndarray, "..."],
        prior: Num[Array | np.ndarray, "..."] | None = None,
    ) -> Prediction:
        """Mean (m, 1) and covariance (m, m) of the function at new rows.

        Args:
            cross: local kernels (S, S, m, n) of the new rows and the training rows.
            prior: local kernels (S, S, m, m) of the new rows; without it, only the mean is found.

        Raises ValueError for shapes that do not fit.
        """
        size, rows = self.draws.matrices.shape[1], len(self.mixture.targets)
        new = np.shape(cross)[2] if np.ndim(cross) == 4 else 1
        kernels = [functools.partial(_mix, given_shape("cross", cross, (size, size, new, rows)))]
        if prior is not None:
            prior = given_shape("prior", prior, (size, size, new, new))
            kernels.append(functools.partial(_mix, prior))
        return self.mixture.predict(kernels[0], kernels[1] if prior is not None else None)


def convolution_mixture(
    local: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    channels: Widths,
    *,
    grid: tuple[int, ...],
    filter_shape: tuple[int, ...],
    noise: float,
    padding: str = "SAME",
    samples: int = 4000,
    seed: int = 0,
) -> ConvolutionMixture:
    """The posterior of a deep linear convolutional network with one output, by weighted draws.

    >>> x = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, -1.0]])
    >>> local = np.einsum("pi,qj->ijpq", x, x)
    >>> y = np.array([[1.0], [-1.0]])
    >>> found = convolution_mixture(local, y, (3, 5), grid=(4,), filter_shape=(3,), noise=0.5)
    >>> bool(found.draws.standard_error < 0.02)
    True

    The network is convolutions of stride 1 and one dense readout of all positions and channels,
    each weight's variance one over its fan-in. Given its weights but the first layer's, outputs are
    N(0, sum_ij A_ij local_ij): data mix pairs of positions, not one scale. A is the end of a chain
    of Wishart matrices, one a hidden layer, between which it is averaged along the filter. Where
    data are strong, draws reach the posterior of a few positions behind one hidden layer only, and
    others are refused: use `proportional_blocks`.

    Args:
        local: (S, S, n, n), x_i . x'_j / C_0 for all pairs of the inputs' S positions, of all pairs
            of training rows; positions of a grid in the order of its last axis first.
        targets: (n, 1).
        channels: of the hidden layers, from the inputs to the output.
        grid, filter_shape: extents, of one or more axes.
        noise: variance of the noise on the targets, above 0.
        padding: "SAME", zeros around filters of odd extents, or "CIRCULAR".
        samples, seed: of the draws.

    Raises ValueError for shapes and channels that do not fit, and where fewer than 100 draws count.

    Source: bassetti2024, convolutional layers.
    """
    taps = _taps(grid, filter_shape, padding)
    size, rows = taps.shape[1], np.shape(local)[-1] if np.ndim(local) == 4 else 1
    local = given_shape("local", local, (size, size, rows, rows))
    targets = given_targets(targets, rows, f"local kernels {local.shape}")
    average = Filter(taps, 1, 1 / len(taps)).read  # covariances of what a filter's taps read
    each = given_channels(channels)
    chain = WishartChain(np.eye(size) / size, each[::-1], (average,) * (len(each) - 1))
    mixture = KernelMixture.of(
        chain, lambda matrices: _mix(local, average(matrices)), targets, given_noise(noise),
        samples, seed,
    )  # fmt: skip
    # what mixes the inputs' positions is behind the first filter
    draws = mixture.draws._replace(matrices=average(mixture.draws.matrices))
    mixture = dataclasses.replace(mixture, draws=draws, kernels=functools.partial(_mix, local))
    return ConvolutionMixture(mixture)


def _mix(local: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """sum_ij A_ij local_ij of some A."""
    size = local.shape[0] ** 2
    mixed = matrices.reshape(-1, size) @ local.reshape(size, -1)
    return mixed.reshape(-1, *local.shape[2:])


def _taps(
    grid: tuple[int, ...], filter_shape: tuple[int, ...], padding: str
) -> Float[np.ndarray, "M S S"]:
    """For each tap, which position (column) each position (row) reads."""
    if len(grid) != len(filter_shape) or not grid or min(*grid, *filter_shape) < 1:
        raise ValueError(
            f"grid is {grid} and filter_shape {filter_shape}: give extents, at least 1, of the "
            "same axes."
        )
    if padding not in get_args(Padding):
        raise ValueError(f"padding is {padding!r}: give 'SAME' or 'CIRCULAR'.")
    if padding == "SAME" and any(extent % 2 == 0 for extent in filter_shape):
        raise ValueError(f"filter_shape is {filter_shape}: with padding='SAME' give odd extents.")
    taps = np.ones((1, 1, 1))
    for size, extent in zip(grid, filter_shape, strict=True):
        offsets = range(-(extent // 2), extent - extent // 2)
        if padding == "SAME":
            along = np.stack([np.eye(size, k=offset) for offset in offsets])
        else:
            along = np.stack([np.roll(np.eye(size), offset, axis=1) for offset in offsets])
        taps = np.stack([np.kron(first, second) for first in taps for second in along])
    return taps
