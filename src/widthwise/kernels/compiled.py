"""What Numba compiles of the kernels' paths."""

from typing import no_type_check

import numpy as np
from numba import njit

# Sums may be ordered freely and products fused; NaN and infinity do not occur.
FREELY = {"contract", "reassoc", "nsz", "nnan", "ninf", "arcp"}


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def of_cosines(cosines, least, near, far, kind, rows, columns, found):
    """found = rows columns P(2 sqrt(1 - |c|) - 1), with P = `near` where c >= 0, `far` elsewhere.

    Coefficients are tuples, lowest power first, so that their number is known when this is compiled
    and powers are unrolled. All but 1 - |c|, which is 0 below `least`, is done in the type `kind`,
    that of all other arguments.
    """
    n, m = cosines.shape
    for i in range(n):
        scale = rows[i]
        for j in range(m):
            c = cosines[i, j]
            gap = 1 - abs(c)
            gap = gap if gap > least else least - least
            at = kind(2) * np.sqrt(kind(gap)) - kind(1)
            a, b = near[-1], far[-1]
            for k in range(2, len(near) + 1):
                a = a * at + near[-k]
                b = b * at + far[-k]
            found[i, j] = (a if c >= 0 else b) * (scale * columns[j])
