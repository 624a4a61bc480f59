"""Wide finite networks approach the limit of every nonlinearity like n^-1/2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from found import NONLINEARITIES, input_scale
from gaussian import alone, derivative, kinks_of
from slowly import cases

from widthwise.finite import FiniteNetwork
from widthwise.kernels import kernel_matrix
from widthwise.network import Dense, Erf, Readout, Relu, Sign, Sin, Tanh
from widthwise.scaling import NTK

# a kink, a jump, smooth functions, a series
ALWAYS = [f for f in NONLINEARITIES if type(f) in (Relu, Sign, Erf, Sin, Tanh)]
OTHERS = [f for f in NONLINEARITIES if f not in ALWAYS]
WIDTHS = (64, 1024)
SEEDS = 24


def kernels(f, x, width, keys):
    """NNGP kernels of the features and tangent kernels of the output, one pair a key."""
    net = FiniteNetwork(
        Dense(bias_variance=0.1) >> f >> Readout(weight_variance=1.0), width, x.shape[1], 1, NTK()
    )

    @jax.jit
    @jax.vmap
    def both(parameters):
        features = list(net.features(parameters, x).values())[-1]
        jacobian = jax.jacrev(lambda p: net.apply(p, x)[:, 0])(parameters)
        flat = [j.reshape(len(x), -1) for j in jax.tree.leaves(jacobian)]
        return features @ features.T / width, sum(j @ j.T for j in flat)

    # drawn one by one: compiled once for all nonlinearities
    drawn = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(net.draw, keys))
    return [np.asarray(part, dtype=float) for part in both(drawn)]


def expected_gap(f, variance):
    """Relative error of E[f(u) f(v)], or of E[f'(u) f'(v)], as a mean over WIDTHS[1] features."""
    spreads = []
    with jax.enable_x64(True):
        for function in (f, derivative(f)):
            mean, kinks = alone(function, variance, kinks_of(f)), kinks_of(f)
            fourth = alone(lambda h, g=function: g(h) ** 2, variance, kinks)
            spreads.append(fourth / mean**2 if mean else 0.0)
    return np.sqrt(max(spreads) / WIDTHS[1])


@pytest.mark.parametrize("f", cases(ALWAYS, OTHERS), ids=repr)
def test_gap_to_the_limit(f, rng, getkey):
    x = rng.normal(size=(4, 3)) * input_scale(f)
    limits = kernel_matrix(Dense(bias_variance=0.1) >> f >> Readout(weight_variance=1.0), x)
    # the largest entries of a kernel are those that fluctuate most
    expected = expected_gap(f, 2 * np.max(np.mean(x**2, axis=1)) + 0.1)
    keys = jax.random.split(getkey(), SEEDS)
    found = [kernels(f, jnp.asarray(x, "float32"), width, keys) for width in WIDTHS]
    for which, limit in enumerate(limits):
        size = np.sqrt(np.mean(limit**2))
        gaps = [np.sqrt(np.mean((one[which] - limit) ** 2)) / size for one in found]
        exponent = np.log(gaps[1] / gaps[0]) / np.log(WIDTHS[1] / WIDTHS[0])
        assert gaps[1] < 2 * expected, (gaps, expected)
        assert -0.7 < exponent < -0.3, (which, gaps, exponent)
        bias = np.sqrt(np.mean((found[1][which].mean(axis=0) - limit) ** 2)) / size
        assert bias < 3 * gaps[1] / np.sqrt(SEEDS), "the mean over draws is the limit"
