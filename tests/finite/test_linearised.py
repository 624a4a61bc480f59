"""A linearised network moves as its tangent kernel says, and its features and start stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widthwise as ww
from widthwise.finite import FiniteNetwork, LinearisedNetwork, taylor_expand, train
from widthwise.finite.train import InitialFunction, initial_key
from widthwise.problem import Problem, loss_value
from widthwise.solve import float64

NETWORK = ww.Dense(bias_variance=0.1) >> ww.Relu() >> ww.Dense() >> ww.Erf() >> ww.Readout()


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    return Problem(x[:12], y[:12], x[12:], y[12:], 0.0, "regression")


def network(width=32, entrywise=False):
    return FiniteNetwork(NETWORK, width, 4, 2, ww.NTK(), entrywise)


def test_it_is_the_first_taylor_polynomial(problem):
    net = network()
    with float64():
        start = net.draw(jax.random.key(0), "float64")
        change = jax.tree.map(lambda w: 0.3 * jnp.cos(3.0 * w), start)
        moved = jax.tree.map(jnp.add, start, change)
        x = jnp.asarray(problem.x_train)
        wanted = taylor_expand(net.apply, start)(moved, x)
        found = LinearisedNetwork(net).apply((start, change), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_descent_is_that_of_the_empirical_tangent_kernel(problem):
    net, lr, steps = network(), 0.5, 7
    learner = ww.GradientDescent(lr=lr, steps=steps)
    with float64():
        start = net.draw(initial_key(3), "float64")
        rates = net.map(lambda one, w: jnp.full_like(w, one.rate), start)
        x = np.concatenate([problem.x_train, problem.x_test])
        kernel = ww.finite.empirical_kernel(net.apply, start, x, outputs="all", rates=rates)
        state, found = train(
            LinearisedNetwork(net), problem, learner, lr=lr, seed=3, dtype="float64"
        )
        f = np.asarray(net.apply(start, jnp.asarray(x)))
    for _ in range(steps):
        slope = (f[:12] - problem.y_train) / 12
        f = f - lr * np.einsum("nmkl,ml->nk", kernel[:, :12], slope)
    np.testing.assert_allclose(found.predictions[-1], f[12:], rtol=1e-9)
    np.testing.assert_allclose(state.predict(problem.x_test, False).value, f[12:], rtol=1e-9)


def test_under_adam_start_and_features_stay(problem):
    net, learner = (
        network(entrywise=True),
        ww.Adam(lr=0.1, steps=20, batch_size=5, weight_decay=0.1),
    )
    state, found = train(LinearisedNetwork(net), problem, learner, lr=0.1, seed=1)
    drawn = net.draw(initial_key(1))
    jax.tree.map(np.testing.assert_array_equal, state.parameters[0], drawn)
    assert all((kernel == kernel[0]).all() for kernel in found.kernels.values())
    assert found.train_loss[-1] < found.train_loss[0]
    first = InitialFunction(net, 1)(problem.x_train)
    assert found.train_loss[0] == pytest.approx(loss_value(first, problem.y_train, "mse"), rel=1e-5)
    plain = train(net, problem, learner, lr=0.1, seed=1)[1]
    assert np.abs(plain.predictions[-1] - found.predictions[-1]).max() > 1e-3
