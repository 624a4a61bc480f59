"""One hidden layer as wide as data are many, whose kernel mixes blocks: patches, or gates."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float, Num

from widthwise.limits.matrices import condition
from widthwise.limits.proportional.action import Order, least_action
from widthwise.run import Prediction
from widthwise.solve import cholesky
from widthwise.solve.given import given_channels, given_noise, given_shape, given_targets


@dataclasses.dataclass(frozen=True)
class ProportionalBlocks:
    """A Gaussian process with kernel sum_ij Q_ij blocks_ij, with Q at the action's minimum.

    >>> blocks = gate_blocks(np.eye(3), np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
    >>> found = proportional_blocks(blocks, np.ones((3, 1)), 10, noise=0.1)
    >>> found.order.shape
    (2, 2)
    """

    source: ClassVar[str] = (
        "li2022, gated networks and their kernels; aiudi2025, local kernel renormalization"
    )
    order: Order
    action: float
    kernel: Float[np.ndarray, "n n"]  # of the training rows
    targets: Float[np.ndarray, "n 1"]
    noise: float

    def predict(
        self,
        cross: Num[Array | np.ndarray, "..."],
        prior: Num[Array | np.ndarray, "..."] | None = None,
    ) -> Prediction:
        """Mean (m, 1) and covariance (m, m) of the function at new rows.

        Args:
            cross: blocks (d, d, m, n) of the new rows and the training rows.
            prior: blocks (d, d, m, m) of the new rows; without it, only the mean is found.

        Raises ValueError for shapes that do not fit.
        """
        size, rows = len(self.order), len(self.targets)
        new = np.shape(cross)[2] if np.ndim(cross) == 4 else 1
        beside = self._kernel("cross", cross, (size, size, new, rows))
        own = None if prior is None else self._kernel("prior", prior, (size, size, new, new))
        return condition(self.kernel, self.targets, self.noise, cross=beside, prior=own)

    def _kernel(self, name: str, blocks, shape: tuple[int, ...]) -> np.ndarray:
        return np.tensordot(self.order, given_shape(name, blocks, shape), 2)


def proportional_blocks(
    blocks: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    width: int,
    noise: float,
) -> ProportionalBlocks:
    """The posterior of one hidden layer whose kernel mixes d x d blocks, as wide as data are many.

    >>> blocks = gate_blocks(np.eye(3), np.ones((3, 1)))
    >>> found = proportional_blocks(blocks, 2 * np.ones((3, 1)), 6, noise=0.5)
    >>> found.order.round(3).tolist()
    [[1.405]]

    Q minimises N (tr Q - log |Q|) + log |A| + y^T A^-1 y, where A is sum_ij Q_ij blocks_ij + noise:
    the identity at infinite width. Errors at width N are of order 1 / N; `gated_mixture` and
    `convolution_mixture` of `finite.deep_linear` are exact at every width. For networks with
    nonlinearities it is a heuristic, as `proportional` is.

    Args:
        blocks: (d, d, n, n), of the training rows, from `patch_blocks` or `gate_blocks`.
        targets: (n, 1).
        width: units or channels of the hidden layer.
        noise: variance of the noise on the targets, above 0.

    Raises ValueError for shapes and widths that do not fit.

    Source: li2022, gated networks and their kernels; aiudi2025, local kernel renormalization.
    """
    size, rows = (np.shape(blocks)[0], np.shape(blocks)[2]) if np.ndim(blocks) == 4 else (1, 1)
    blocks = given_shape("blocks", blocks, (size, size, rows, rows))
    targets, noise = given_targets(targets, rows, f"blocks {blocks.shape}"), given_noise(noise)
    if targets.shape[1] != 1:
        raise ValueError(f"targets have {targets.shape[1]} columns: give one.")
    if noise == 0:
        raise ValueError("noise is 0, and kernels of blocks may be singular: give noise above 0.")

    def data(order):
        factor = cholesky(np.tensordot(order, blocks, 2) + noise * np.eye(rows))
        solved = factor.solve(targets)
        pull = factor.solve(np.eye(rows)) - solved @ solved.T
        slope = np.tensordot(blocks, pull, 2)
        return factor.log_determinant() + float(np.sum(targets * solved)), (slope + slope.T) / 2

    found = least_action(data, given_channels((width,)), size)
    kernel = np.tensordot(found.order, blocks, 2)
    return ProportionalBlocks(found.order, found.action, (kernel + kernel.T) / 2, targets, noise)


def patch_blocks(kernels: Num[Array | np.ndarray, "n m ..."]) -> Float[np.ndarray, "S S n m"]:
    """Blocks of a hidden convolution with a dense readout, of kernels at all pairs of positions.

    >>> patch_blocks(np.ones((2, 3, 4, 4))).shape
    (4, 4, 2, 3)

    `kernels` (n, m, *grid, *grid) is what `position_kernels` gives of the hidden layer alone; each
    block is the kernel of patches i and j over the number of positions.

    Raises ValueError for axes that are not two grids.
    """
    kernels = np.asarray(kernels, dtype=np.float64)
    axes = kernels.shape[2:]
    half = len(axes) // 2
    if not half or axes[:half] != axes[half:]:
        raise ValueError(
            f"kernels have shape {kernels.shape}: give (n, m, *grid, *grid), of position_kernels."
        )
    size = int(np.prod(axes[:half]))
    flat = kernels.reshape(*kernels.shape[:2], size, size)
    return flat.transpose(2, 3, 0, 1) / size


def gate_blocks(
    kernel: Num[Array | np.ndarray, "n m"],
    gates: Num[Array | np.ndarray, "n M"],
    others: Num[Array | np.ndarray, "m M"] | None = None,
) -> Float[np.ndarray, "M M n m"]:
    """Blocks of a globally gated network with one hidden layer.

    >>> gate_blocks(np.eye(2), np.array([[1.0, 0.0], [2.0, 1.0]]))[0, 0].tolist()
    [[0.25, 0.0], [0.0, 5.0]]

    `kernel` is x . x' / N_0, whose columns have the gates `others` if they are other rows. Block
    (i, j) is g_i(x) g_j(x') (g(x) . g(x') / M) kernel / M.

    Source: li2022, gated networks and their kernels.
    """
    first = np.asarray(gates, dtype=np.float64)
    second = first if others is None else np.asarray(others, dtype=np.float64)
    count = first.shape[1]
    hidden = first @ second.T / count * np.asarray(kernel, dtype=np.float64)
    return np.einsum("ni,mj,nm->ijnm", first, second, hidden) / count
