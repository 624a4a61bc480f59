"""What every nonlinearity must satisfy. `pytest -k Bump` runs these for one of them."""

import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from found import CLIPPED, EVERYONE, NONLINEARITIES, input_scale
from gaussian import alone, derivative, expectation, kinks_of, reach_of

from widthwise.kernels import kernel_matrix
from widthwise.network import Dense, Moments, Readout
from widthwise.network.build import tangents
from widthwise.network.nonlinear import AbstractQuadrature
from widthwise.scaling import NTK

everyone = pytest.mark.parametrize("f", EVERYONE, ids=repr)
# Of whole networks, whose compilation takes seconds: by default of every class at its defaults, and
# of a function of users.
every_class = pytest.mark.parametrize(
    "f",
    [
        f if f in NONLINEARITIES or f == CLIPPED
        else pytest.param(f, marks=pytest.mark.slow)
        for f in EVERYONE
    ],
    ids=repr,
)  # fmt: skip
PAIRS = [
    (1.0, 0.3, 2.0),
    (0.5, -0.4, 0.5),
    (1.0, 0.0, 1.0),
    (2.0, 2.0, 2.0),
    (1.0, -1.0, 1.0),
    (2.0, 2.0 - 1e-9, 2.0),
    (1e-6, 5e-7, 1e-6),
    (1e-6, 3e-4, 0.5),
    (60.0, -50.0, 60.0),
]
ROWS = 16


def bounds(f, a, b):
    """What a nonlinearity says of its own errors, relative to its diagonals."""
    if not isinstance(f, AbstractQuadrature):
        return 0.0, 0.0
    factor = 1.0 if a == b else 2.0
    both = zip(f.error(a), f.error(b), strict=True)
    return tuple(factor * np.sqrt(one * other) for one, other in both)


@functools.cache
def compiled(f):
    return jax.jit(jax.vmap(lambda a, c, b: (f.dual(a, c, b), f.slope(a, c, b))))


def both(f):
    """Dual and slope of up to ROWS pairs, compiled once for all tests."""

    def rules(*pairs):
        count = len(pairs[0])
        padded = [jnp.pad(entries, (0, ROWS - count), mode="edge") for entries in pairs]
        return [found[:count] for found in compiled(f)(*padded)]

    return rules


@every_class
def test_dual_and_slope_are_gaussian_expectations(f, double):
    kinks, reach = kinks_of(f), reach_of(f, 60.0)
    found = np.asarray(both(f)(*jnp.array(PAIRS).T))
    for which, function in enumerate((f, derivative(f))):
        for (a, c, b), value in zip(PAIRS, found[which], strict=True):
            scale = np.sqrt(alone(function, a, kinks, reach) * alone(function, b, kinks, reach))
            expected = expectation(function, a, c, b, kinks, reach)
            allowed = (2e-11 + bounds(f, a, b)[which]) * scale + 1e-15
            told = f"{('dual', 'slope')[which]}({a}, {c}, {b}) of {f!r} is {value}"
            assert abs(value - expected) <= allowed, f"{told}, the expectation is {expected}"


def jump(f):
    """How far f jumps at 0."""
    low, high = f(jnp.array([-1e-9, 1e-9]))
    return float(high - low)


@everyone
def test_slope_is_the_derivative_of_dual(f, double):
    """Where f jumps, the derivative sees the jumps of both: their size times the density at 0,
    which no gradient of a network sees. (None of ours both jumps at 0 and slopes beside it.)"""
    a, c, b = jnp.array([(1.0, 0.3, 2.0), (0.5, -0.4, 0.5), (1.5, 1.4, 1.5)]).T
    rules = both(f)
    rise = (rules(a, c + 3e-6, b)[0] - rules(a, c - 3e-6, b)[0]) / 6e-6
    # where terms are left out, slope and derivative leave out different ones
    rise -= jump(f) ** 2 / (2 * jnp.pi * jnp.sqrt(a * b - c * c))
    missing = max(bounds(f, a, a)[1] for a in (0.5, 1.0, 2.0)) * rules(a, a, a)[1].max()
    np.testing.assert_allclose(rules(a, c, b)[1], rise, rtol=1e-7, atol=1e-9 + 200 * missing)


@every_class
def test_slope_where_x_meets_itself(f, x64):
    """No NaN, and the exact value, compiled or not, for an input, its duplicate and its mirror."""
    digits = 1e-12 if x64 else 3e-5
    variances = np.array([0.3, 0.7, 1.1, 2.3])
    with jax.enable_x64(True):
        slope = derivative(f)
        expected = [alone(slope, a, kinks_of(f), reach_of(f, 2.3)) for a in variances]
    a = jnp.asarray(variances)
    zero, one = jnp.zeros(1), jnp.ones(1)
    left = jnp.concatenate([a, a, a, zero, zero])
    inner = jnp.concatenate([a, jnp.nextafter(a, 0 * a), -a, zero, zero])
    right = jnp.concatenate([a, a, a, zero, one])
    dual, compiled = both(f)(left, inner, right)
    assert jnp.isfinite(dual).all()
    kinds = [compiled]
    if not isinstance(f, AbstractQuadrature):  # where single operations may round otherwise
        kinds.append(jax.vmap(f.slope)(left, inner, right))
    for found in kinds:
        assert jnp.isfinite(found).all()
        np.testing.assert_allclose(found[:4], expected, rtol=digits)
        np.testing.assert_allclose(found[4:8], expected, rtol=digits)


@every_class
def test_gradients_in_the_variances(f, double, rng):
    """Of whole kernel matrices, diagonal and duplicates included: what an evidence climbs. A row
    of zeros has variance 0 without biases, where square roots have no derivative."""
    rows = np.append(rng.normal(size=(3, 2))[[0, 1, 2, 0]], [[0.0, 0.0]], axis=0)
    x = jnp.asarray(rows) * input_scale(f)
    weights = jnp.asarray(rng.normal(size=(2, 5, 5)))

    def total(weight, bias):
        net = Dense(weight_variance=weight, bias_variance=bias) >> f >> Readout(bias_variance=bias)
        moments = net.kernel(tangents(net, 2, NTK()), Moments.of(x))
        parts = weights * jnp.stack([moments.xy, moments.ntk])
        return jnp.sum(parts), jnp.sum(jnp.abs(parts))

    climb = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    h, ((_, size), found) = 1e-5, climb(1.5, 0.2)
    # the quotient itself is off by third derivatives times h^2, and by digits over h
    allowed = 1e-6 + 1e-9 * size
    for i, (dw, db) in enumerate([(h, 0.0), (0.0, h)]):
        rise = (climb(1.5 + dw, 0.2 + db)[0][0] - climb(1.5 - dw, 0.2 - db)[0][0]) / (2 * h)
        assert abs(found[i] - rise) < allowed
    assert jnp.isfinite(jnp.stack(climb(1.5, 0.0)[1])).all(), "a bias variance of 0 can grow"


@pytest.mark.parametrize(
    "f", [f for f in EVERYONE if not isinstance(f, AbstractQuadrature)], ids=repr
)
def test_dual_moves_with_its_variance(f, double):
    """At u = v the derivatives in a, c and b are finite, and together that of E[f(u)^2]."""
    kinks, reach, h = kinks_of(f), reach_of(f, 1.0), 1e-5
    by_a, by_c, by_b = jax.grad(f.dual, (0, 1, 2))(0.8, 0.8, 0.8)
    rise = (alone(f, 0.8 + h, kinks, reach) - alone(f, 0.8 - h, kinks, reach)) / (2 * h)
    assert abs(by_a + by_c + by_b - rise) < 1e-8 * (1 + abs(rise))
    assert abs(by_a - by_b) < 1e-12 * (1 + abs(by_a))


@every_class
def test_kernel_is_symmetric_and_positive(f, x64, rng):
    x = rng.normal(size=(8, 3))[[0, 1, 2, 3, 4, 5, 6, 7, 0, 3]] * input_scale(f)
    for kernel in kernel_matrix(Dense() >> f >> Dense() >> f >> Readout(), x):
        assert kernel.dtype == np.float64
        np.testing.assert_array_equal(kernel, kernel.T)
        values = np.linalg.eigvalsh(kernel)
        assert values[0] > -1e-12 * values[-1]
        np.testing.assert_allclose(kernel[:, 8:], kernel[:, [0, 3]], rtol=1e-11)


@everyone
def test_float32(f):
    """Under JAX's default precision the rules give float32, near the float64 values."""
    values = np.array([[1.3], [0.4], [0.9]])
    found = both(f)(*jnp.asarray(values))
    with jax.enable_x64(True):
        exact = both(f)(*jnp.asarray(values))
    for single, double in zip(found, exact, strict=True):
        assert single.dtype == jnp.float32 and double.dtype == jnp.float64
        np.testing.assert_allclose(single, double, rtol=3e-5, atol=1e-5)


@everyone
def test_is_a_value(f):
    again = pickle.loads(pickle.dumps(f))
    assert again == f and hash(again) == hash(f) and repr(again) == repr(f)
    assert [x for x in EVERYONE if x == f] == [f]
    assert repr(f).startswith(type(f).__name__ + "(")
    assert re.match(r"[a-z]+\d{4}\w*, .+", f.source)
