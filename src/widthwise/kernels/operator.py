"""Symmetric kernel matrices that are computed anew, tile by tile, whenever they are multiplied."""

import numpy as np
from jaxtyping import Num

from widthwise.kernels.matrix import Kernel, chosen_path
from widthwise.kernels.path import Precision
from widthwise.network.layer import AbstractLayer
from widthwise.scaling import AbstractScaling
from widthwise.solve.symmetric import AbstractSymmetric


class ComputedKernel(AbstractSymmetric):
    """The kernel matrix of rows against themselves, of which nothing is kept.

    >>> kernel = ComputedKernel(Dense() >> Relu() >> Readout(), np.eye(3), which="nngp")
    >>> kernel.product(np.ones((3, 1))).shape
    (3, 1)

    Arguments and errors as for `kernel_matrix`.
    """

    def __init__(
        self,
        network: AbstractLayer,
        x: Num[np.ndarray, "n *s d"],
        *,
        which: Kernel,
        precision: Precision = "float32",
        scaling: AbstractScaling | None = None,
    ):
        self._path = chosen_path(network, x, which=which, precision=precision, scaling=scaling)
        self.size, self.edge = len(x), self._path.rows

    def tile(self, a, b):
        return self._path.tile(a, b)[0]
