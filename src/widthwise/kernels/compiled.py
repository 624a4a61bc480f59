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


@njit(nogil=True, cache=True, fastmath=FREELY, error_model="numpy")
@no_type_check
def _ratio(square, series):
    """arcsin(s) / s of s^2, at most 1/2: a polynomial in two parts, as in `of_cosines`."""
    low, high = series
    at = 4 * square - 1
    a, b, up = low[-1], high[-1], at
    for power in range(2, len(low) + 1):
        a = a * at + low[-power]
        up = up * at
    for power in range(2, len(high) + 1):
        b = b * at + high[-power]
    return a + up * b


@njit(nogil=True, cache=True, fastmath=FREELY, error_model="numpy")
@no_type_check
def _affine(k, t, m, numbers):
    variance, bias, carry, tangent, own = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    for j in range(m):
        t[j] = carry * t[j] + tangent * k[j] + own
        k[j] = variance * k[j] + bias


@njit(nogil=True, cache=True, fastmath=FREELY, error_model="numpy")
@no_type_check
def _error_function(k, t, m, own, others, numbers, series):
    """Through a function whose dual is multiple * arcsin(z) + constant, z = k own other."""
    multiple, constant, right = numbers[5], numbers[6], np.pi / 2
    for j in range(m):
        both = own * others[j]
        z = k[j] * both
        size, square = abs(z), z * z
        rest = (1 - size) * (1 + size)
        sine = np.sqrt(rest)
        inner = square <= 0.5
        ratio = _ratio(square if inner else rest, series)
        beyond = right - sine * ratio
        beyond = beyond if z >= 0 else -beyond
        k[j] = multiple * (z * ratio if inner else beyond) + constant
        t[j] = t[j] * (multiple * both / sine)


@njit(nogil=True, cache=True, fastmath=FREELY, error_model="numpy")
@no_type_check
def _kinked(k, t, m, own, others, root, roots, numbers, least, series):
    """Through a function whose dual is linear K + kinked E[relu relu].

    The cosine is k own other. What it lacks of 1 is 0 below `least`, as it is for the rules
    (network/arccos.py), so that a row and its copy coincide.
    """
    linear, kinked, whole = numbers[5], numbers[6] / (2 * np.pi), np.pi
    root = kinked * root
    for j in range(m):
        c = k[j] * (own * others[j])
        gap = 1 - abs(c)
        gap = gap if gap > least else 0.0
        rest, square = gap * (2 - gap), (1 - gap) * (1 - gap)
        sine = np.sqrt(rest)
        inner = square <= 0.5
        ratio = _ratio(square if inner else rest, series)
        least_angle = sine * ratio
        beyond = whole - least_angle if c >= 0 else least_angle
        left = 0.5 * whole + c * ratio if inner else beyond  # of pi, behind the angle
        slope = linear + kinked * left
        k[j] = slope * k[j] + root * roots[j] * sine
        t[j] = t[j] * slope


@njit(nogil=True, cache=True, fastmath=FREELY, error_model="numpy")
@no_type_check
def through_layers(k, one, two, at, kinds, numbers, least, series, nngp, ntk):
    """Products of inputs, through a chain of layers; what they hold is lost.

    one, two: of each layer and row of a side, its factor of cosines and its standard deviation.
    at: the first row of either side.
    kinds: of the functions; -1 where there is none.
    numbers: of each layer, (variance, bias, carry, tangent, own) of what is affine, and two of the
        function behind it.
    least, series: of cosines, what they lack of 1 by rounding; arcsin(s) / s, in two parts.
    nngp, ntk: where to write; without rows where a matrix is not wanted.
    """
    n, m = k.shape
    t = np.empty(m)
    for i in range(n):
        row = k[i]
        t[:] = 0.0
        for layer in range(len(kinds)):
            own, root = one[layer, 0, at[0] + i], one[layer, 1, at[0] + i]
            others, roots = two[layer, 0, at[1] :], two[layer, 1, at[1] :]
            _affine(row, t, m, numbers[layer])
            if kinds[layer] == 0:
                _error_function(row, t, m, own, others, numbers[layer], series)
            elif kinds[layer] == 1:
                _kinked(row, t, m, own, others, root, roots, numbers[layer], least, series)
        if len(nngp):
            nngp[i] = row
        if len(ntk):
            ntk[i] = t
