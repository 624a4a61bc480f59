"""The closed forms of Relu and Erf, to 1e-12, against quadrature split at the kink."""

from typing import Any

import numpy as np
import pytest
from gaussian import derivative, expectation, kinks_of

from widthwise.kernels import kernel_matrix
from widthwise.network import Abs, Dense, Erf, LeakyRelu, Readout, Relu

TOLERANCE = 1e-12  # of sqrt(E[f(u)^2] E[f(v)^2])


def test_a_row_of_zeros_is_at_a_right_angle_to_all(double):
    """Half of either side of the step at 0, as quadrature says too; no eigenvalue below zero."""
    x = np.array([[0.0, 0.0], [1e-3, 0.0], [-1e-3, 0.0], [0.0, 1e-3]])
    kinds: Any = ((Relu(), 0.25), (LeakyRelu(0.2), 0.36), (Abs(), 0.0))
    for f, slope in kinds:
        assert float(f.slope(0.0, 0.0, 1.0)) == pytest.approx(slope, abs=1e-12)
        assert float(f.slope(0.0, 0.0, 0.0)) == pytest.approx(slope, abs=1e-12)
        kernel = kernel_matrix(Dense(bias_multiplier=1.0) >> f >> Readout(), x).ntk
        assert np.linalg.eigvalsh(kernel)[0] > -1e-12


@pytest.mark.parametrize("f", [Relu(), Erf(), Erf(a=0.7, b=1.3, c=0.2)], ids=repr)
@pytest.mark.parametrize("a, b", [(1.0, 1.0), (0.3, 2.5), (4.0, 0.01)])
def test_closed_form(double, f, a, b):
    size = np.sqrt(a * b)
    kinks = kinks_of(f)
    scale = np.sqrt(expectation(f, a, a, a, kinks) * expectation(f, b, b, b, kinks))
    steep = derivative(f)
    slope_scale = np.sqrt(expectation(steep, a, a, a, kinks) * expectation(steep, b, b, b, kinks))
    for cosine in (-1.0, -0.999, -0.7, -0.1, 0.0, 0.35, 0.9, 0.9999, 1.0):
        c = cosine * size
        dual = expectation(f, a, c, b, kinks)
        slope = expectation(steep, a, c, b, kinks)
        assert abs(float(f.dual(a, c, b)) - dual) < TOLERANCE * scale, cosine
        assert abs(float(f.slope(a, c, b)) - slope) < TOLERANCE * slope_scale, cosine
