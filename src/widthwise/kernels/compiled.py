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

    Polynomials are pairs of tuples, P = low + x^n high, of n coefficients each, lowest power first:
    so that their number is known when this is compiled, and powers are unrolled. LLVM does so up to
    14 of them, and an entry takes nine times as long where it does not. All but 1 - |c|, which is 0
    below `least`, is done in the type `kind`, that of all other arguments.
    """
    n, m = cosines.shape
    (near_low, near_high), (far_low, far_high) = near, far
    for i in range(n):
        scale = rows[i]
        for j in range(m):
            c = cosines[i, j]
            gap = 1 - abs(c)
            gap = gap if gap > least else least - least
            at = kind(2) * np.sqrt(kind(gap)) - kind(1)
            a, b, up = near_low[-1], far_low[-1], at
            for k in range(2, len(near_low) + 1):
                a = a * at + near_low[-k]
                b = b * at + far_low[-k]
                up = up * at
            high, other = near_high[-1], far_high[-1]
            for k in range(2, len(near_high) + 1):
                high = high * at + near_high[-k]
                other = other * at + far_high[-k]
            value = a + up * high if c >= 0 else b + up * other
            found[i, j] = value * (scale * columns[j])
