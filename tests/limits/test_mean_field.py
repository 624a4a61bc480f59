"""The mean-field limit against matrix equations, wide networks, and what it must reduce to."""

import pickle
from typing import Any

import jax
import numpy as np
import pytest

from widthwise.finite import FiniteNetwork, train
from widthwise.learner import GradientDescent
from widthwise.limits.base import EmptyCell, Work
from widthwise.limits.mean_field import DynamicalMeanField
from widthwise.limits.tangent import TangentKernel
from widthwise.network import Abs, Dense, Elementwise, Erf, Identity, Readout, Relu, Tanh
from widthwise.problem import Diverged, Problem, logged_steps
from widthwise.scaling import NTK, MeanField, MuP, Richness
from widthwise.schedule import Linear

MUP = MuP()
UNIT: Any = dict(weight_variance=1.0, bias_multiplier=0.0)
DEEP_TANH = Dense(**UNIT) >> Tanh() >> Dense(**UNIT) >> Tanh() >> Readout(**UNIT)
DEEP_ERF = Dense(**UNIT) >> Erf() >> Dense(**UNIT) >> Erf() >> Readout(**UNIT)  # a quick kernel


def problem(rows=4, columns=6, outputs=1, test=3, seed=0) -> Problem:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows + test, columns))
    if outputs == 1:
        y = np.sign(rng.standard_normal((rows + test, 1)))
    else:
        y = np.eye(outputs)[rng.integers(0, outputs, rows + test)]
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, "regression")


def solve(network, data, learner, scaling: Any = MUP, logs=6, **settings) -> Any:
    limit = DynamicalMeanField(network, scaling, learner, **settings)
    said = limit.refusal()  # one hidden linear layer is solved here too, as a check
    assert said is None or "RichLinear" in said
    return limit.prepare(data, order=3, logs=logs).train()


def matrix_equations(kernel, y, depth, lr, gamma0, steps):
    """Outputs and H^L of a deep linear network at all steps: the self-consistent equations for the
    kernels H, G and responses A, B of (rows * steps)^2 entries, by damped iteration."""
    rows, c = len(y), lr * gamma0 / len(y)
    earlier = np.tril(np.ones((steps, steps)), -1)
    mask = np.repeat(earlier, rows, 0)
    h = [np.tile(kernel, (steps, steps)) for _ in range(depth + 1)]
    g = [np.ones((steps, steps)) for _ in range(depth + 2)]
    a = [np.zeros((steps * rows, steps)) for _ in range(depth + 1)]
    b = [np.zeros((steps, steps * rows)) for _ in range(depth + 1)]
    f = np.zeros((steps, rows))
    for _ in range(300):
        delta, spread = y - f, np.zeros((steps * rows, steps))
        for s in range(steps):
            spread[s * rows : (s + 1) * rows, s] = delta[s]
        new_h, new_g, new_a, new_b, new_f = [*h], [*g], [*a], [*b], f
        for l in range(1, depth + 1):  # noqa: E741
            up = a[l - 1] + c * mask * (h[l - 1] @ spread)
            down = b[l] + c * np.repeat(earlier * g[l + 1], rows, 1) * delta.ravel()
            on = np.linalg.inv(np.eye(steps * rows) - up @ down)
            back = np.linalg.inv(np.eye(steps) - down @ up)
            new_h[l] = on @ (h[l - 1] + up @ g[l + 1] @ up.T) @ on.T
            new_g[l] = back @ (g[l + 1] + down @ h[l - 1] @ down.T) @ back.T
            new_a[l], new_b[l - 1] = on @ up, back @ down
            if l == depth:
                both = on @ (h[l - 1] @ down.T + up @ g[l + 1]) @ back.T
                new_f = np.stack([both[t * rows : (t + 1) * rows, t] for t in range(steps)])
                new_f = new_f / gamma0
        new_a[0], new_b[depth] = 0 * a[0], 0 * b[depth]
        change = np.abs(new_f - f).max()
        h, g, a, b = (
            [0.6 * x + 0.4 * o for x, o in zip(new, old, strict=True)]
            for new, old in ((new_h, h), (new_g, g), (new_a, a), (new_b, b))
        )
        f = 0.6 * new_f + 0.4 * f
        if change < 1e-11:
            return f, h[depth]
    raise AssertionError("the matrix equations do not converge")


@pytest.mark.parametrize("depth, lr, gamma0", [(1, 0.3, 1.0), (2, 0.1, 2.0), (3, 0.1, 1.0)])
def test_deep_linear_networks_obey_the_matrix_equations(depth, lr, gamma0):
    data, steps = problem(rows=3, test=0), 12
    f, h = matrix_equations(
        data.x_train @ data.x_train.T / 6, data.y_train[:, 0], depth, lr, gamma0, steps + 1
    )
    network = Dense(**UNIT)
    for _ in range(depth - 1):
        network = network >> Dense(**UNIT)
    learner = GradientDescent(lr=lr, steps=steps)
    found = solve(network >> Readout(**UNIT), data, learner, MuP(gamma0))
    times = list(logged_steps(steps, 6))
    lost = 0.5 * np.mean((f[times] - data.y_train[:, 0]) ** 2, axis=1)
    np.testing.assert_allclose(found.trajectory.train_loss, lost, atol=1e-7)
    at = found.state.predict(data.x_train, False).value[:, 0]
    np.testing.assert_allclose(at, f[-1], atol=1e-7)
    (kernel,) = found.trajectory.kernels.values()
    expected = np.stack([h[3 * t : 3 * t + 3, 3 * t : 3 * t + 3] for t in times])
    np.testing.assert_allclose(kernel, expected, atol=1e-6)
    assert found.notes[0].startswith("Solved exactly")


def test_samples_solve_what_is_linear_without_noise():
    """The same network once in coordinates and once in samples: only what is dropped differs."""
    data, learner = problem(), GradientDescent(lr=0.1, steps=20)
    linear = Dense(**UNIT) >> Dense(**UNIT) >> Readout(**UNIT)
    same = Elementwise(fn=lambda h: 1.0 * h)
    sampled = Dense(**UNIT) >> same >> Dense(**UNIT) >> same >> Readout(**UNIT)
    one = solve(linear, data, learner).trajectory.predictions
    two = solve(sampled, data, learner, samples=1024, tolerance=1e-5).trajectory.predictions
    np.testing.assert_allclose(two, one, atol=2e-3)
    assert np.abs(one[-1]).max() > 0.2


EVERYTHING = (
    Dense(weight_variance=1.5, bias_variance=0.3, bias_multiplier=0.5)
    >> Tanh()
    >> Dense(weight_variance=0.8, bias_variance=0.2, bias_multiplier=0.7, lr_multiplier=0.5)
    >> Erf()
    >> Readout(weight_variance=0.7, bias_multiplier=0.4, lr_multiplier=2.0)
)
LEARNERS = [
    GradientDescent(
        lr=0.2, steps=25, batch_size=5, momentum=0.5, weight_decay=0.05, schedule=Linear(0.2),
        loss="cross_entropy",
    ),
    GradientDescent(lr=0.5, steps=25),
]  # fmt: skip


def held_against_networks(network, learner, width, seeds, allowed, scaling: Any):
    """Losses and predictions against the mean over networks; the limit is neither at its start nor
    lazy, so that constants and exponents all matter."""
    data = problem(rows=8, columns=5, outputs=3, test=8)
    found = solve(network, data, learner, scaling).trajectory
    outputs = data.y_train.shape[1]
    net = FiniteNetwork(network, width, data.x_train.shape[1], outputs, scaling)
    runs = [
        train(net, data, learner, lr=learner.lr, seed=seed, order=3, logs=6)[1]
        for seed in range(seeds)
    ]
    mean = np.mean([run.predictions for run in runs], axis=0)
    apart = np.sqrt(np.mean((mean - found.predictions) ** 2, axis=(1, 2)))
    assert apart.max() < allowed, apart
    assert np.abs(found.predictions[-1]).max() > 8 * allowed
    for name, kernel in found.kernels.items():
        finite = np.mean([run.kernels[name] for run in runs], axis=0)
        size = np.abs(kernel).max()
        assert np.abs(finite - kernel).max() < 3 * allowed * size
        assert np.abs(kernel[-1] - kernel[0]).max() > 6 * allowed * size
    return apart


@pytest.mark.parametrize(
    "learner",
    [
        pytest.param(LEARNERS[0], id="everything"),
        pytest.param(LEARNERS[1], id="plain", marks=pytest.mark.slow),
    ],
)
def test_it_is_where_wide_networks_go(learner):
    held_against_networks(EVERYTHING, learner, 1024, 3, 0.025, MuP(1.5))


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS, ids=["everything", "plain"])
@pytest.mark.parametrize(
    "network, scaling",
    [
        (EVERYTHING, MuP(1.5)),
        (Dense() >> Relu() >> Readout(), MuP()),
        (Dense() >> Dense() >> Abs() >> Readout(), MeanField()),
        (Dense() >> Dense(weight_variance=0.8, bias_variance=0.5) >> Readout(), Richness(0.0, 2.0)),
    ],
    ids=["deep", "shallow", "half linear", "linear"],
)
def test_it_is_where_very_wide_networks_go(network, scaling, learner):
    held_against_networks(network, learner, 4096, 4, 0.02, scaling)


def test_poor_networks_are_lazy():
    data, learner = problem(), GradientDescent(lr=0.5, steps=30)
    found = solve(DEEP_ERF, data, learner, MuP(0.02)).trajectory
    lazy = TangentKernel(DEEP_ERF, NTK(), learner).prepare(data, order=0, logs=6).train()
    np.testing.assert_allclose(found.predictions, lazy.trajectory.predictions, atol=0.01)
    rich = solve(DEEP_ERF, data, learner, MuP(1.0)).trajectory
    assert np.abs(rich.predictions - lazy.trajectory.predictions).max() > 0.2


def test_one_limit_in_all_coordinates():
    data, learner = problem(), GradientDescent(lr=0.5, steps=10)
    one = solve(DEEP_TANH, data, learner, MuP(1.3), samples=512).trajectory.predictions
    two = solve(DEEP_TANH, data, learner, Richness(0.0, 1.3), samples=512).trajectory.predictions
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    one = solve(DEEP_TANH, data, learner, MuP(), samples=512).trajectory.predictions
    two = solve(DEEP_TANH, data, learner, MeanField(), samples=512).trajectory.predictions
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("columns", [6, 2])
def test_new_rows(columns):
    """Predicted alone, after a copy, or beside others: the same, and as rows that rode along with
    training, with no part in the loss, up to samples."""
    data, learner = problem(rows=4, columns=columns, test=5), GradientDescent(lr=0.5, steps=20)
    found = solve(DEEP_TANH, data, learner)
    value = found.state.predict(data.x_test, False).value
    np.testing.assert_allclose(value, found.trajectory.predictions[-1], atol=1e-6)
    copy = pickle.loads(pickle.dumps(found.state))
    np.testing.assert_allclose(copy.predict(data.x_test[2:3], False).value, value[2:3], atol=1e-5)
    with pytest.raises(ValueError, match="columns"):
        found.state.predict(np.ones((1, 9)), False)
    learning = np.concatenate([data.x_train, data.x_test])
    riding = data._replace(
        x_train=learning, y_train=np.concatenate([data.y_train, data.y_test]), x_test=data.x_test
    )
    # batches of the four training rows only: the test rows enter the bases, not the loss
    limit = DynamicalMeanField(DEEP_TANH, MuP(), learner)
    prepared: Any = limit.prepare(riding, order=0, logs=4)
    with pytest.MonkeyPatch.context() as patch:
        rows = np.tile(np.arange(4), (20, 1))
        patch.setattr("widthwise.limits.mean_field.limit.batches", lambda *_: rows)
        beside = prepared.train().trajectory.predictions[-1]
    np.testing.assert_allclose(value, beside, atol=0.04)


def test_kernels_are_those_of_the_limit():
    """At the start, the layers' kernels are the lazy ones; they are of positive type."""
    data, learner = problem(), GradientDescent(lr=0.5, steps=10)
    kernels = solve(DEEP_ERF, data, learner).trajectory.kernels
    lazy = TangentKernel(DEEP_ERF, NTK(), learner).prepare(data, order=0, logs=6).train()
    assert list(kernels) == list(lazy.trajectory.kernels)
    for name, kernel in kernels.items():
        np.testing.assert_allclose(kernel[0], lazy.trajectory.kernels[name][0], atol=0.02)
        assert np.linalg.eigvalsh(kernel).min() > -1e-6


def test_the_stated_error_is_the_error():
    """The mean over more samples lies within a few of the standard errors that the note tells."""
    data, learner = problem(test=20), GradientDescent(lr=0.5, steps=20)
    small = solve(DEEP_TANH, data, learner, samples=1024)
    large = solve(DEEP_TANH, data, learner, samples=32768).trajectory.predictions
    stated = float(small.notes[0].split("standard error is ")[1].split()[0])
    off = np.sqrt(np.mean((small.trajectory.predictions - large) ** 2, axis=(1, 2))).max()
    assert stated / 4 < off < 4 * stated
    assert 0.001 < stated < 0.05


def test_it_is_deterministic_and_tells_its_share():
    data, learner, shares = problem(), GradientDescent(lr=0.5, steps=8), []
    limit = DynamicalMeanField(DEEP_TANH, MuP(), learner, samples=512)
    one = limit.prepare(data, order=0, logs=4).train(None, Work(advance=shares.append))
    two = limit.prepare(data, order=0, logs=4).train()
    np.testing.assert_array_equal(one.trajectory.predictions, two.trajectory.predictions)
    assert sum(shares) == pytest.approx(1.0)


def test_too_few_samples_are_told():
    data, learner = problem(rows=30, columns=20), GradientDescent(lr=0.2, steps=30)
    found = solve(DEEP_TANH, data, learner, samples=480)
    assert any("found no room: raise samples" in note for note in found.notes)


def test_steps_past_stability():
    """Far past it training diverges; little past it, it is chaotic and says so."""
    data = problem()
    with pytest.raises(Diverged, match="lower lr"):
        relu = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
        solve(relu, data, GradientDescent(lr=50.0, steps=60), samples=512)
    with pytest.raises(Diverged, match="lower lr"):
        linear = Dense() >> Dense() >> Readout()
        solve(linear, data, GradientDescent(lr=20.0, steps=60))
    found = solve(DEEP_TANH, data, GradientDescent(lr=3.4, steps=60), MuP(3.0), samples=1024)
    assert any("chaotic" in note for note in found.notes)
    calm = solve(DEEP_TANH, data, GradientDescent(lr=0.3, steps=20), samples=1024)
    assert not any("lr" in note for note in calm.notes)


@pytest.mark.parametrize(
    "network, learner, said",
    [
        (Dense() >> Relu() >> Readout(), GradientDescent(projection=8), "pi-limit"),
        (Dense() >> Relu() >> Readout(), GradientDescent(ridge=0.1), "weight_decay"),
        (Dense() >> Relu() >> Readout(), GradientDescent(clip=0.1), "leave clip out"),
        (Dense(times=2) >> Relu() >> Readout(), GradientDescent(), "times=1"),
        (Dense() >> (Identity() + (Relu() >> Dense())) >> Readout(), GradientDescent(), "stack"),
        (Dense() >> Relu() >> Readout(bias_variance=0.1), GradientDescent(), "bias_variance=0"),
    ],
)
def test_refusals(network, learner, said):
    refusal = DynamicalMeanField(network, MuP(), learner).refusal()
    assert refusal is not None and said in refusal


def test_what_is_too_large_is_refused_before_it_begins():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20_000, 8)), np.ones((20_000, 1))
    data = Problem(x, y, x[:0], y[:0], 0.0, "regression")
    limit = DynamicalMeanField(DEEP_TANH, MuP(), GradientDescent(lr=0.1, steps=1000))
    with pytest.raises(EmptyCell, match=r"at most 512 rows.*20,000 came.*projection=400"):
        limit.check(data)
    few = data._replace(x_train=x[:500], y_train=y[:500])
    long = DynamicalMeanField(DEEP_TANH, MuP(), GradientDescent(lr=0.1, steps=10_000))
    with pytest.raises(EmptyCell, match=r"operations.*fewer rows or steps.*projection=400"):
        long.check(few)
    with pytest.raises(ValueError, match="tolerance"):
        DynamicalMeanField(DEEP_TANH, MuP(), GradientDescent(), tolerance=1.5)
    with pytest.raises(ValueError, match="samples"):
        DynamicalMeanField(DEEP_TANH, MuP(), GradientDescent(), samples=4)


def test_nonlinearities_of_the_user():
    """A function in JAX is enough; it needs no dual."""
    data, learner = problem(), GradientDescent(lr=0.3, steps=10)
    own = Dense(**UNIT) >> Elementwise(fn=jax.nn.softplus) >> Readout(**UNIT)
    named = Dense(**UNIT) >> Elementwise(fn=lambda h: jax.numpy.logaddexp(h, 0)) >> Readout(**UNIT)
    one = solve(own, data, learner, samples=512).trajectory.predictions
    two = solve(named, data, learner, samples=512).trajectory.predictions
    np.testing.assert_allclose(one, two, atol=1e-4)
