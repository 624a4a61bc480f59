"""Filters on finite grids against XLA's convolution, and over more axes than it is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.kernels import kernel_matrix
from widthwise.network import Conv, Flatten, Readout, Relu, Unflatten
from widthwise.network.conv import filtered
from widthwise.network.taps import Taps

CASES = {
    "plain": (Taps(3, 1, 1, 1), Taps(2, 1, 0, 1)),
    "strided": (Taps.of(7, 3, 2, "SAME"), Taps.of(6, 2, 3, "VALID")),
    "transposed": (Taps.transposed(3, 2, "SAME"), Taps.transposed(2, 3, "VALID")),
}


@pytest.mark.parametrize("taps", CASES.values(), ids=list(CASES))
def test_as_a_convolution(taps, rng):
    x, weight = rng.standard_normal((7, 6, 3)), rng.standard_normal((taps[0][0], taps[1][0], 3, 4))
    expected = jax.lax.conv_general_dilated(
        jnp.asarray(x)[None], jnp.asarray(weight), [own.stride for own in taps],
        [(own.low, own.high) for own in taps], lhs_dilation=[own.dilation for own in taps],
        dimension_numbers=("NXYC", "XYIO", "NXYC"),
    )[0]  # fmt: skip
    np.testing.assert_allclose(
        filtered(jnp.asarray(x), taps, jnp.asarray(weight)), expected, atol=1e-4
    )


def test_a_circular_one_reads_the_other_end(rng):
    x, weight = rng.standard_normal((5, 2)), rng.standard_normal((3, 2, 4))
    taps = (Taps.of(5, 3, 1, "CIRCULAR"),)
    expected = sum(np.roll(x, 1 - k, axis=0) @ weight[k] for k in range(3))
    np.testing.assert_allclose(
        filtered(jnp.asarray(x), taps, jnp.asarray(weight)), expected, atol=1e-5
    )


def test_axes_of_length_one_change_nothing(rng):
    x = rng.standard_normal((4, 12))
    two = Unflatten((3, 4)) >> Conv((2, 3)) >> Relu() >> Flatten() >> Readout()
    four = Unflatten((1, 3, 1, 4)) >> Conv((1, 2, 1, 3)) >> Relu() >> Flatten() >> Readout()
    for one, other in zip(kernel_matrix(two, x), kernel_matrix(four, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
