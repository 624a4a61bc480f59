"""Kernel matrices that several members of one study read: computed once, kept within bounds."""

import hashlib
from collections import OrderedDict

import numpy as np
from jaxtyping import Float

from widthwise.kernels import KernelEstimates, KernelMatrices, kernel_matrix
from widthwise.network.layer import AbstractLayer
from widthwise.scaling import AbstractScaling

KEPT = 2**29  # bytes of matrices that are kept, the last ones asked for
_kept: OrderedDict[tuple, KernelMatrices | KernelEstimates] = OrderedDict()


def shared_kernels(
    network: AbstractLayer,
    x1: Float[np.ndarray, "n *s d"],
    x2: Float[np.ndarray, "m *s d"] | None = None,
    *,
    scaling: AbstractScaling,
) -> KernelMatrices | KernelEstimates:
    """`kernel_matrix`, or what it last gave for the same network, rows and scaling; read only.

    Flow, steps and posterior of one network read the same kernels, and those of images cost more
    than all else.
    """
    key = (network, scaling, _digest(x1), None if x2 is None else _digest(x2))
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    found = kernel_matrix(network, x1, x2, scaling=scaling)
    for matrix in found:
        matrix.flags.writeable = False
    _kept[key] = found
    while sum(matrix.nbytes for kept in _kept.values() for matrix in kept) > KEPT:
        _kept.popitem(last=False)  # this one too, where it is too large alone
    return found


def _digest(x: np.ndarray) -> tuple:
    rows = np.ascontiguousarray(x)
    return rows.shape, rows.dtype.str, hashlib.blake2b(rows.data, digest_size=16).digest()
