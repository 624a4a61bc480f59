"""The covariances after every layer, of any number of rows."""

from typing import Any

import numpy as np
import pytest

import widthwise as ww
from widthwise.kernels import kernel_matrix
from widthwise.kernels.matrix import layer_kernels

NET: Any = ww.Dense() >> ww.Relu() >> ww.Dense() >> ww.Erf() >> ww.Readout()


@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_each_layer_s_kernel_is_that_of_the_network_cut_after_it(rows, rng):
    x = rng.normal(size=(rows, 3))
    found = layer_kernels(NET, x)
    assert len(found) == 5
    for count, kernel in enumerate(found[1:], start=2):
        cut = ww.network.Chain(NET.layers[:count])
        np.testing.assert_allclose(kernel, kernel_matrix(cut, x).nngp, rtol=1e-12)


def test_one_layer_alone_has_one_kernel(rng):
    x = rng.normal(size=(3, 2))
    (found,) = layer_kernels(ww.Dense(), x)
    np.testing.assert_allclose(found, x @ x.T, rtol=1e-12)
