"""The closed forms of Relu and Erf, to 1e-12, against quadrature split at the kink."""

import numpy as np
import pytest
from gaussian import derivative, expectation, kinks_of

from widthwise.network import Erf, Relu

TOLERANCE = 1e-12  # of sqrt(E[f(u)^2] E[f(v)^2])


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
