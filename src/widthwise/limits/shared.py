"""Kernel matrices that several members of one study read: computed once, kept within bounds."""

import hashlib
from collections import OrderedDict

import numpy as np
from jaxtyping import Float

from widthwise.kernels import KernelEstimates, KernelMatrices, kernel_matrix
from widthwise.memory import free_memory
from widthwise.network.layer import AbstractLayer
from widthwise.scaling import AbstractScaling

KEPT = 2**29  # bytes of matrices that are kept, the last ones asked for; more on machines that
SHARE = 8  # have more: one part in so many of their free memory
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
    key = (network, scaling, digest(x1), None if x2 is None else digest(x2))
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    found = kernel_matrix(network, x1, x2, scaling=scaling)
    for matrix in found:
        matrix.flags.writeable = False
    _kept[key] = found
    room = max(KEPT, (_bytes() + (free_memory() or 0)) // SHARE)
    while _bytes() > room:
        _kept.popitem(last=False)  # this one too, where it is too large alone
    return found


def _bytes() -> int:
    return sum(matrix.nbytes for kept in _kept.values() for matrix in kept)


def digest(x: np.ndarray) -> tuple:
    """What tells rows from others: their shape, type and content."""
    rows = np.ascontiguousarray(x)
    return rows.shape, rows.dtype.str, hashlib.blake2b(rows.data, digest_size=16).digest()
