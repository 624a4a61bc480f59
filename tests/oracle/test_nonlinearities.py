"""Tanh networks against integrals of high accuracy, where the reference's own rule is coarse."""

from pathlib import Path

import numpy as np
import pytest
from gaussian import alone, derivative, expectation

from widthwise.kernels import kernel_matrix
from widthwise.network import Dense, Readout, Tanh

STORED = np.load(Path(__file__).parent / "lazy" / "nl_tanh_quad100.npz")
WEIGHT, BIAS = 1.2**2, 0.1**2


def tanh_network():
    """Two hidden layers, as the stored case has them."""
    dense = Dense(weight_variance=WEIGHT, bias_variance=BIAS, bias_multiplier=0.1)
    readout = Readout(weight_variance=1.0, bias_variance=BIAS, bias_multiplier=0.1)
    return dense >> Tanh() >> dense >> Tanh() >> readout


def integrated(a, c, b):
    """(NNGP, tangent kernel) of one pair with these input covariances, by quadrature."""
    ntk = 0.0
    for _ in range(2):
        ntk = WEIGHT * (ntk + c) + BIAS
        a, c, b = (WEIGHT * entry + BIAS for entry in (a, c, b))
        if a == c == b:
            ntk *= alone(derivative(Tanh()), a)
            a = c = b = alone(Tanh(), a)
        else:
            ntk *= expectation(derivative(Tanh()), a, c, b)
            a, c, b = alone(Tanh(), a), expectation(Tanh(), a, c, b), alone(Tanh(), b)
    return c + BIAS, ntk + c + BIAS


@pytest.mark.parametrize("other", [0, 1], ids=["itself", "another"])
def test_tanh_beats_the_rule_of_a_hundred_nodes(other, double):
    """Within 1e-9 of the integrals, at least a thousand times nearer than the reference."""
    x = STORED["x1"]
    kernels = kernel_matrix(tanh_network(), x)
    gaps, theirs = [], []
    for i in range(3):
        j = i + other
        gram = x[[i, j]] @ x[[i, j]].T / x.shape[1]
        for which, wanted in enumerate(integrated(gram[0, 0], gram[0, 1], gram[1, 1])):
            gaps.append(abs(kernels[which][i, j] / wanted - 1))
            theirs.append(abs(STORED[("nngp_11", "ntk_11")[which]][i, j] / wanted - 1))
    assert max(gaps) < 1e-9 and max(gaps) < 1e-3 * max(theirs), (gaps, theirs)
