"""Kernels of networks that leave a grid: every position of one input against every other's."""

import functools
import math

import jax
import numpy as np
from jaxtyping import Num

from widthwise.kernels.matrix import KernelMatrices, check_rules, checked_sides
from widthwise.kernels.rules import most_positions
from widthwise.memory import check_free
from widthwise.network.begin import begin, check_rows, input_signal
from widthwise.network.build import tangents
from widthwise.network.known import KnownGrid
from widthwise.network.layer import AbstractLayer
from widthwise.network.pairs import PairGrid
from widthwise.network.signal import Pairs
from widthwise.scaling import NTK, AbstractScaling
from widthwise.solve.precision import float64

ARRAYS = 12  # of the size of the answer, held at once


def position_kernels(
    network: AbstractLayer,
    x1: Num[np.ndarray, "n *s d"],
    x2: Num[np.ndarray, "m *s d"] | None = None,
    *,
    scaling: AbstractScaling | None = None,
) -> KernelMatrices:
    """The NNGP and tangent kernels of a network that leaves a grid, for all pairs of positions.

    >>> position_kernels(Conv() >> Relu(), np.ones((2, 3, 4, 1))).ntk.shape
    (2, 2, 3, 4, 3, 4)

    Arguments as for `kernel_matrix`. Both kernels have the axes of x1's rows, of x2's rows, of the
    grid for x1 and of the grid for x2, all in the order in which the data have them.

    Raises ValueError for a network that leaves a vector, besides what `kernel_matrix` raises.
    """
    x1, x2 = checked_sides(x1, x2)
    check_rules(network)
    leaving = network.signal(input_signal(x1.shape[1:]))
    if not leaving.shape:
        raise ValueError(f"{network!r} leaves one vector: ask for kernel_matrix.")
    most = most_positions(network, x1.shape[1:])
    n, m = len(x1), len(x1 if x2 is None else x2)
    check_free(8 * ARRAYS * n * m * most**2, f"Kernels of {most} positions", "use fewer rows")
    for x in (x1, x2):
        if x is not None:
            check_rows(network, x)
    with float64():
        own = tangents(network, x1.shape[1:], NTK() if scaling is None else scaling)
        found = _through(network, own, x1, x2)
        shape: tuple[int, ...] = leaving.shape  # type: ignore[assignment]
        count = math.prod(shape)
        return KernelMatrices(*(
            np.asarray(k).reshape(n, count, m, count).transpose(0, 2, 1, 3)
            .reshape(n, m, *shape, *shape) for k in found
        ))  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _through(network, own, x1, x2):
    found = network.kernel(own, begin(network, x1, x2, Pairs.ALL)).mixed()
    grid = found.grid if isinstance(found, KnownGrid) else found
    assert isinstance(grid, PairGrid)
    return grid.cross, grid.ntk
