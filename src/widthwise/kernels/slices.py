"""What Numba compiles of the path of images: slices of pairs of positions (p, p + d), one
displacement d after the other, through the layers between two poolings.

A slice holds D = (K(x, x) + K(y, y)) / 2 - K(x, y) and the tangent kernel T. D is 0 where two
positions see the same, with all digits nearby, so that float32 does where K would not: an angle is
the root of what a cosine lacks of 1. Both are those of images divided by their lengths, for of D no
digit of K(x, y) would be left where K(x, x) is much larger than K(y, y).

Rows hold columns times lanes: a lane is a pair of inputs, and all loops run along whole rows. The
loops are short of arrays on purpose: LLVM gives up vectors where it would have to compare more than
eight addresses, at an index of unknown sign, and at a Python maximum, which asks for NaN.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.compiled import FREELY
from widthwise.kernels.stages import FILTER


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _half_sum(x, y, found, n, half):
    for m in range(n):
        found[m] = half * (x[m] + y[m])


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _across(row, found, n, taps, step):
    """found[m] = the sum of `taps` entries of a row from m on, `step` apart."""
    if taps == 3:
        second, third = row[step:], row[2 * step :]
        for m in range(n):
            found[m] = row[m] + second[m] + third[m]
        return
    for m in range(n):
        found[m] = row[m]
    for tap in range(1, taps):
        other = row[tap * step :]
        for m in range(n):
            found[m] += other[m]


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _down(rows, taps, found, n, each):
    """found = the sum of the first `taps` rows, times `each`."""
    if taps == 3:
        a, b, c = rows[0], rows[1], rows[2]
        for m in range(n):
            found[m] = each * (a[m] + b[m] + c[m])
        return
    first = rows[0]
    for m in range(n):
        found[m] = each * first[m]
    for tap in range(1, taps):
        row = rows[tap]
        for m in range(n):
            found[m] += each * row[m]


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _weigh(d, t, mean1, mean2, n, numbers):
    """From means over taps to what leaves: the mean of K is that of the variances less d."""
    variance, carry, tangent, half = numbers[0], numbers[1], numbers[2], numbers[5]
    for m in range(n):
        t[m] = carry * t[m] + tangent * (half * (mean1[m] + mean2[m]) - d[m])
        d[m] = variance * d[m]


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _add(d, t, pair, n, numbers):
    """What a bias adds: the same in both images, until they are divided by their lengths."""
    (inverse, apart), own, bias = pair, numbers[3], numbers[7]
    for m in range(n):
        t[m] += own * inverse[m]
        d[m] += bias * apart[m]


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _kink(d, t, root1, root2, back1, back2, n, numbers, series):
    """Through a function whose dual is linear K + kinked E[relu relu].

    With gap = 1 - |cosine|, E[relu relu] is half of s1 s2 (max(cosine, 0) + gap^1.5 R(gap)) and
    its slope half of 1 - gap^0.5 Q(gap), or of what that lacks of 1 where the cosine is below 0.
    A gap that may be rounding is 0, as it is for the rules (network/arccos.py): where positions
    are the same but for a factor. Before a pooling, it has all digits where s1 = s2 and the cosine
    is near 1; behind one, it is rounded as variances are.
    """
    linear, kinked, turned, one, half = numbers[0], numbers[1], numbers[2], numbers[4], numbers[5]
    zero, straight = one - one, numbers[0] + numbers[5] * numbers[1]
    r, q, least, pooled = series
    for m in range(n):
        both = back1[m] * back2[m]
        apart, product = root1[m] - root2[m], root1[m] * root2[m]
        least_d = half * apart * apart
        less = (d[m] - least_d) * both  # what the cosine lacks of 1
        rounded = least * (d[m] + half * abs(apart) * (root1[m] + root2[m])) * both + pooled
        less = less if both > zero else one  # an input of zeros is at a right angle to all
        gap = less if less < one else one + one - less
        gap = gap if gap > rounded else zero
        a, b = r[-1], q[-1]
        for power in range(2, len(q) + 1):
            a = a * gap + r[-power]
            b = b * gap + q[-power]
        root = np.sqrt(gap)
        near = one - root * b
        slope = near if less <= one else one - near
        left = half * kinked * gap * root * a
        # the same with D written out, for an even function makes one of x and -x
        across = straight * least_d + product * (turned - linear * gap - left)
        d[m] = straight * d[m] - product * left if less <= one else across
        t[m] = t[m] * (linear + half * kinked * slope)


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _wrap(rows, h, w, lanes, edge, sizes):
    """A slice once more beyond its edges."""
    _, _, low_h, high_h, low_w, high_w = sizes
    first, last = edge * lanes, (edge + w) * lanes
    low, high = low_w * lanes, high_w * lanes
    for i in range(h):
        row = rows[edge + i]
        row[first - low : first] = row[last - low : last]
        row[last : last + high] = row[first : first + high]
    for i in range(low_h):
        rows[edge - low_h + i, first - low : last + high] = rows[
            edge + h - low_h + i, first - low : last + high
        ]
    for i in range(high_h):
        rows[edge + h + i, first - low : last + high] = rows[edge + i, first - low : last + high]


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _surround(work, h, w, lanes, sizes, front, at, half):
    """Outside the slice K is 0, and D half of the variances that are there."""
    edge, d, t, _, _ = work
    y1, x1, y2, x2 = at
    _, _, low_h, high_h, low_w, high_w = sizes
    left, right = (edge - low_w) * lanes, (edge + w) * lanes
    for i in range(h + low_h + high_h):
        at_d, at_t = d[edge - low_h + i], t[edge - low_h + i]
        one = front[0][edge + y1 - low_h + i, x1 * lanes :]
        two = front[1][edge + y2 - low_h + i, x2 * lanes :]
        if i < low_h or i >= low_h + h:
            n = (w + low_w + high_w) * lanes
            _half_sum(one[left:], two[left:], at_d[left:], n, half)
            at_t[left : left + n] = 0
            continue
        _half_sum(one[left:], two[left:], at_d[left:], low_w * lanes, half)
        _half_sum(one[right:], two[right:], at_d[right:], high_w * lanes, half)
        at_t[right : right + high_w * lanes] = 0


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _filter(work, h, w, lanes, sizes, numbers, front, mean, at, pair, around):
    """A filter on a slice of h by w; gives its new extents."""
    edge, d, t, passed_d, passed_t = work
    taps_h, taps_w, low_h, high_h, low_w, high_w = sizes
    y1, x1, y2, x2 = at
    each, left = numbers[6], (edge - low_w) * lanes
    if around:
        _wrap(d, h, w, lanes, edge, sizes)
        _wrap(t, h, w, lanes, edge, sizes)
    else:
        _surround(work, h, w, lanes, sizes, front, at, numbers[5])
    rows, columns = h + low_h + high_h, w + low_w + high_w
    h, w = rows - taps_h + 1, columns - taps_w + 1
    n = w * lanes
    # what leaves is written over rows that no later one reads; their sums stay in nearest cache
    for r in range(rows):
        _across(d[edge - low_h + r, left:], passed_d[r % taps_h], n, taps_w, lanes)
        _across(t[edge - low_h + r, left:], passed_t[r % taps_h], n, taps_w, lanes)
        i = r - taps_h + 1
        if i < 0:
            continue
        row_d, row_t = d[edge + i, edge * lanes :], t[edge + i, edge * lanes :]
        _down(passed_d, taps_h, row_d, n, each)
        _down(passed_t, taps_h, row_t, n, each)
        _weigh(row_d, row_t, mean[0][y1 + i, x1 * lanes :], mean[1][y2 + i, x2 * lanes :],
               n, numbers)  # fmt: skip
        if numbers[3] > 0 or numbers[7] > 0:
            _add(row_d, row_t, pair, n, numbers)
    return h, w


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _evolve(work, h, w, lanes, stage, one, two, at, pair, around, series):
    """A slice through all operations of a stage; gives its extents at the end."""
    edge, d, t, _, _ = work
    y1, x1, y2, x2 = at
    kinds, sizes, numbers = stage
    for op in range(len(kinds)):
        if kinds[op] == FILTER:
            h, w = _filter(
                work, h, w, lanes, sizes[op], numbers[op], (one.front[op], two.front[op]),
                (one.mean[op], two.mean[op]), at, pair, around,
            )  # fmt: skip
            continue
        for i in range(h):
            _kink(
                d[edge + i, edge * lanes :], t[edge + i, edge * lanes :],
                one.root[op, y1 + i, x1 * lanes :], two.root[op, y2 + i, x2 * lanes :],
                one.back[op, y1 + i, x1 * lanes :], two.back[op, y2 + i, x2 * lanes :],
                w * lanes, numbers[op], series,
            )  # fmt: skip
    return h, w


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _add_squares(x, y, found, n, half):
    for m in range(n):
        apart = x[m] - y[m]
        found[m] += half * apart * apart


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _accumulate(part, found, lanes):
    for lane in range(lanes):
        found[lane] += part[lane]


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _collect(row, found, w, lanes):
    for j in range(w):
        _accumulate(row[j * lanes :], found, lanes)


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def _pool(work, h, w, lanes, at, shape, window, step, after_d, after_t):
    """Adds a slice to the pairs of windows that its positions lie in; with steps, only where both
    are the first of their windows, for their displacement is so many windows."""
    edge, d, t, _, _ = work
    y1, x1, y2, x2 = at
    rows, columns = after_d.shape[0], after_d.shape[1]
    for i in range(h):
        if (y1 + i) % step[0] != 0:
            continue
        p, q = (y1 + i) // window[0], (y2 + i) % shape[0] // window[0]
        row_d, row_t = d[edge + i, edge * lanes :], t[edge + i, edge * lanes :]
        # counted on, for a division takes as long as the sums
        r, a, s, b = x1 // window[1], x1 % window[1], x2 // window[1], x2 % window[1]
        for j in range(w):
            first = step[1] == 1 or a == 0
            if first and p < rows and q < rows and r < columns and s < columns:
                _accumulate(row_d[j * lanes :], after_d[p, r, q, s], lanes)
                _accumulate(row_t[j * lanes :], after_t[p, r, q, s], lanes)
            a, b = a + 1, b + 1
            if a == window[1]:
                r, a = r + 1, 0
            if b == window[1]:
                s, b = s + 1, 0
            if x2 + j + 1 == shape[1]:  # round
                s, b = 0, 0


@njit(nogil=True, cache=True, fastmath=FREELY)
@no_type_check
def through(
    images, before, stage, one, two, pair, extents, window, after, sums, work, series
):  # fmt: skip
    """All slices of a stage, into pooled pairs of positions or into sums over all of them.

    images: (x, y), (H, channels, W lanes) each, divided by the root of the channels and by the
        image's length; without rows where a stage before has left pairs of positions.
    before: D and T, (H, W, H, W, lanes), where it has.
    stage: kinds, sizes and numbers of the operations.
    one, two: `Grids` of both sides.
    pair: of the reciprocals of both images' lengths, the product, and half of the square of their
        difference; rows of a lane each, as long as the widest of a slice.
    extents: shape of the grid in front; the largest displacement along each axis, a multiple of the
        third, by which displacements grow; whether positions go round, for which the second
        image and its grids stand twice along both axes.
    window: of the pooling behind; (0, 0) where D and T of all pairs are summed.
    after: as `before`, of the pooled grid; sums: (2, lanes) in float64.
    work: edge, and four buffers.
    series: coefficients of R and Q, lowest power first; the part of a sum that may be rounding, and
        the same again where a pooling stands before.
    """
    x, y = images
    before_d, before_t = before
    after_d, after_t = after
    edge, d, t, _, _ = work
    lanes = sums.shape[1]
    half = stage[2][0, 5]
    part = np.empty((2, lanes), d.dtype)
    shape, most, step, around = extents
    least = (0, 0) if around else (-most[0], -most[1])
    for dy in range(least[0], most[0] + 1, step[0]):
        for dx in range(least[1], most[1] + 1, step[1]):
            h, w = shape[0] - abs(dy), shape[1] - abs(dx)
            if around:
                h, w = shape
            y1, x1 = max(0, -dy), max(0, -dx)
            at = (y1, x1, y1 + dy, x1 + dx)
            for i in range(h):
                row_d, row_t = d[edge + i, edge * lanes :], t[edge + i, edge * lanes :]
                if len(x):
                    row_d[: w * lanes] = 0
                    row_t[: w * lanes] = 0
                    for channel in range(x.shape[1]):
                        own = x[y1 + i, channel, x1 * lanes :]
                        other = y[y1 + dy + i, channel, (x1 + dx) * lanes :]
                        _add_squares(own, other, row_d, w * lanes, half)
                    continue
                beside = (y1 + dy + i) % shape[0]
                for j in range(w):
                    p, q = x1 + j, (x1 + dx + j) % shape[1]
                    row_d[j * lanes : (j + 1) * lanes] = before_d[y1 + i, p, beside, q]
                    row_t[j * lanes : (j + 1) * lanes] = before_t[y1 + i, p, beside, q]
            h, w = _evolve(work, h, w, lanes, stage, one, two, at, pair, around, series)
            if window[0] > 0:
                _pool(work, h, w, lanes, at, shape, window, step, after_d, after_t)
                continue
            part[:] = 0
            for i in range(h):
                _collect(d[edge + i, edge * lanes :], part[0], w, lanes)
                _collect(t[edge + i, edge * lanes :], part[1], w, lanes)
            for lane in range(lanes):
                sums[0, lane] += part[0, lane]
                sums[1, lane] += part[1, lane]
