"""Meta-learners against the same steps written out: real weights, autodiff, whole kernels."""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from widthwise.kernels import kernel_matrix
from widthwise.network import Dense, Readout, Relu
from widthwise.solve import float64
from widthwise.tasks.fewshot.adapt import loss_slopes, losses
from widthwise.tasks.fewshot.drawings import Drawings
from widthwise.tasks.fewshot.episodes import TEST, TRAIN, VALIDATION, Part
from widthwise.tasks.fewshot.kernel import META_LR, LinearKernel, ReluKernel, relu_kernel
from widthwise.tasks.fewshot.linear import LinearNetwork, initial_weights
from widthwise.tasks.fewshot.setting import FewShot, Numbers, numbers_for

ORACLE = Path(__file__).parents[1] / "oracle" / "rich" / "relu_kernel_sgd.npz"
SETTING = FewShot(way=3, shot=2, queries=2, tasks=4, inner_lr=0.4, inner_steps=2, clip=0.5)
NUMBERS = Numbers(meta_lr=0.3, input_size=0.9, readout_size=0.4, bias=0.7)


def drawings(classes=12, each=5, seed=0) -> Drawings:
    """Strokes that differ between classes more than within them."""
    rng = np.random.default_rng(seed)
    prototypes = rng.random((classes, 784)) < 0.15
    ink = np.repeat(prototypes, each, axis=0) ^ (rng.random((classes * each, 784)) < 0.03)
    first = np.arange(classes + 1) * each
    return Drawings("toy", (255 * ink).astype(np.uint8), first, tuple(map(str, range(classes))))


def part(number=TRAIN, classes=range(8), orientations=4) -> Part:
    return Part(drawings(), number, np.array(classes), orientations)


@functools.partial(jax.jit, static_argnums=(3, 4))
def task_gradient(weights, drawn, labels, setting, bias):
    """(loss of one task after adapting, its gradient there) with every weight in place."""

    def loss(w, x, labels):
        out = (x @ w[0] + bias * w[1]) @ w[2].T
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(out, labels))

    adapted = weights
    for _ in range(setting.inner_steps):
        slope = jax.grad(loss)(adapted, drawn[0], labels[0])
        adapted = [w - setting.inner_lr * g for w, g in zip(adapted, slope, strict=True)]
    return jax.value_and_grad(loss)(adapted, drawn[1], labels[1])


def written_out(weights, pixels, setting, bias):
    """The sum over tasks."""
    labels = pixels.support_labels, pixels.query_labels
    total, gradient = 0.0, [np.zeros_like(w) for w in weights]
    for drawn in zip(pixels.support, pixels.queries, strict=True):
        with float64():
            found, slope = task_gradient(list(weights), drawn, labels, setting, bias)
        total += float(found)
        gradient = [a + np.asarray(b) for a, b in zip(gradient, slope, strict=True)]
    return total, gradient


@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("width", [5, 40, math.inf])
def test_a_step_as_autodiff_takes_it(width, inner_steps):
    """First-order MAML: the gradient at adapted weights, summed over tasks, clipped."""
    setting = FewShot(
        way=3, shot=2, queries=2, tasks=4, inner_lr=0.02, inner_steps=inner_steps, clip=2.0
    )
    learner, known = LinearNetwork(width, NUMBERS), part()
    state = learner.initial(known, setting, seed=1)
    rng = np.random.default_rng(2)
    state = state._replace(bias=0.1 * rng.normal(size=state.bias.shape))  # else it would not count
    norms = []
    for batch in range(3):
        episodes = known.draw(setting, 4, (batch,))
        total, gradient = written_out(state, known.pixels(episodes), setting, NUMBERS.bias)
        norms.append(math.sqrt(sum(float(np.vdot(g, g)) for g in gradient)))
        rate = NUMBERS.meta_lr * min(1.0, setting.clip / norms[-1])
        expected = [w - rate * g for w, g in zip(state, gradient, strict=True)]
        stepped = learner.step(state, known, episodes, setting)
        assert stepped.loss == pytest.approx(total / 4, rel=1e-10)
        for found, wanted in zip(stepped.state, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
        out = learner.outputs(state, known, episodes, setting, inner_steps)
        np.testing.assert_allclose(
            losses(out, known.pixels(episodes).query_labels).mean(), stepped.loss, rtol=1e-12
        )
        state = stepped.state
    assert max(norms) > setting.clip  # else clipping is not seen


def test_wide_networks_are_ones_of_as_many_units_as_initial_vectors():
    """A network of 40 units on 6 inputs, and what QR leaves of it, learn the same function."""
    rng = np.random.default_rng(0)
    small = initial_weights(40, NUMBERS, 6, 2, np.random.default_rng(3))
    vectors = np.random.default_rng(3).standard_normal((40, 8)) / math.sqrt(40)
    hidden, readout = 0.9 * vectors[:, :6].T, 0.4 * vectors[:, 6:].T
    assert small.hidden.shape == (6, 8)
    np.testing.assert_allclose(small.hidden @ small.hidden.T, hidden @ hidden.T, atol=1e-12)
    np.testing.assert_allclose(small.hidden @ small.readout.T, hidden @ readout.T, atol=1e-12)
    np.testing.assert_allclose(small.readout @ small.readout.T, readout @ readout.T, atol=1e-12)
    x, y = rng.normal(size=(5, 6)), rng.normal(size=(5, 2))
    wide = [hidden, readout]
    reduced = [small.hidden, small.readout]
    for weights in (wide, reduced):
        for _ in range(20):
            slope = (x @ weights[0] @ weights[1].T - y) / 5
            steps = x.T @ slope @ weights[1], slope.T @ (x @ weights[0])
            weights[:] = [w - 0.2 * g for w, g in zip(weights, steps, strict=True)]
    np.testing.assert_allclose(x @ wide[0] @ wide[1].T, x @ reduced[0] @ reduced[1].T, rtol=1e-9)


def test_relu_kernel_is_the_networks():
    x = np.random.default_rng(0).normal(size=(6, 5))
    net = (
        Dense(weight_variance=5.0, bias_multiplier=0.0)
        >> Relu()
        >> Readout(weight_variance=1.0, bias_multiplier=0.0)
    )
    expected = kernel_matrix(net, x)
    sizes = np.linalg.norm(x, axis=1)
    found = [relu_kernel(x @ x.T, sizes[:, None], sizes[None], kind) for kind in ("gp", "ntk")]
    np.testing.assert_allclose(found[0], expected.nngp, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found[1], expected.ntk, rtol=1e-7, atol=1e-9)
    assert np.isfinite(relu_kernel(np.zeros(1), np.zeros(1), np.ones(1), "ntk")).all()


def test_the_authors_kernel_trajectory():
    """f = sum K(x, x_m) C_m, C = -lr dL/df, on ten batches of five digits."""
    digits: Any = load_digits()
    oracle, x = np.load(ORACLE), digits.data / 16
    x = (x - x.mean()) / x.std()
    inputs = np.concatenate([x, np.full((len(x), 1), math.sqrt(oracle["varb"]))], axis=1)
    sizes = np.linalg.norm(inputs, axis=1)
    coefficients, seen = np.zeros((0, 5)), np.zeros(0, int)
    for number, rows in enumerate(oracle["idx"]):
        inner = inputs[rows] @ inputs[seen].T
        gp, ntk = (
            relu_kernel(inner, sizes[rows, None], sizes[None, seen], kind) for kind in ("gp", "ntk")
        )
        # the authors' first layer has no tangent of its bias
        out = (ntk - (ntk - gp) * oracle["varb"] / np.where(inner == 0, 1, inner)) @ coefficients
        np.testing.assert_allclose(out, oracle["out"][number], rtol=1e-9, atol=1e-12)
        labels = np.arange(5)
        assert losses(out[None], labels)[0] == pytest.approx(oracle["loss"][number], rel=1e-9)
        added = -oracle["lr"] * loss_slopes(out[None], labels)[0]
        coefficients, seen = np.concatenate([coefficients, added]), np.concatenate([seen, rows])


@pytest.mark.parametrize("kind", ["linear", "gp", "ntk"])
def test_kernel_learners_sum_coefficients_by_drawing(kind):
    """Against a list of all (query, coefficient) that ever were, and whole kernel matrices."""
    known, other, test = (
        part(), part(VALIDATION, range(8, 10)), part(TEST, range(9, 12), orientations=1)
    )  # fmt: skip
    learner = (
        LinearKernel(known) if kind == "linear" else ReluKernel.of(known, (known, other), kind)
    )
    state, past, past_coefficients = learner.initial(known, SETTING, 0), [], []

    def gram(x1, x2):
        return learner.gram(x1[None], x2[None])[0]

    def adapted(pixels, steps):
        for support, queries in zip(pixels.support, pixels.queries, strict=True):
            f_support, f_queries = (
                sum((gram(x, z) @ c for z, c in zip(past, past_coefficients, strict=True)), 0.0)
                + np.zeros((len(x), 3)) for x in (support, queries)
            )  # fmt: skip
            moved = np.zeros((6, 3))
            for _ in range(steps):
                out = f_support + gram(support, support) @ moved
                moved -= SETTING.inner_lr * loss_slopes(out[None], pixels.support_labels)[0]
            yield f_queries + gram(queries, support) @ moved

    for batch in range(4):
        episodes = known.draw(SETTING, SETTING.tasks, (batch,))
        pixels = known.pixels(episodes)
        out = np.stack(list(adapted(pixels, SETTING.inner_steps)))
        stepped = learner.step(state, known, episodes, SETTING)
        assert stepped.loss == pytest.approx(losses(out, pixels.query_labels).mean(), rel=1e-5)
        slope = loss_slopes(out, pixels.query_labels).reshape(-1, 3)
        queries = pixels.queries.reshape(len(slope), -1)
        norm = math.sqrt(np.vdot(slope, gram(queries, queries) @ slope))
        past.append(queries)
        past_coefficients.append(-META_LR * min(1.0, SETTING.clip / norm) * slope)
        state = stepped.state
    for some in (known, other, test):
        episodes = some.draw(SETTING, 3, (7,))
        out = np.stack(list(adapted(some.pixels(episodes), 5)))
        found = learner.outputs(state, some, episodes, SETTING, 5)
        np.testing.assert_allclose(found, out, rtol=1e-4, atol=1e-5)


def test_kernels_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("widthwise.memory.free_memory", lambda: 1000)
    with pytest.raises(MemoryError, match="40 drawings with 160 turned .* leave the ReLU kernels"):
        ReluKernel.of(part(), (part(),), "gp")


def test_numbers_of_the_nearest_width():
    assert numbers_for(1) == numbers_for(2) and numbers_for(65) != numbers_for(63)
    assert numbers_for(8192) == numbers_for(math.inf)


@pytest.mark.slow
def test_finite_widths_approach_the_limit():
    """The largest gap of the loss over 60 meta-batches, in the mean over draws: like n^-1/2. Small
    images leave widths on both sides of the number of initial vectors."""
    known = part()
    numbers = numbers_for(math.inf)
    setting = FewShot(way=3, tasks=8, inner_lr=0.05)

    def trajectory(width, seed):
        learner = LinearNetwork(width, numbers)
        state, found = learner.initial(known, setting, seed), []
        for batch in range(60):
            state, loss = learner.step(state, known, known.draw(setting, 8, (batch,)), setting)
            found.append(loss)
        return np.array(found)

    limit, widths = trajectory(math.inf, 0), (64, 256, 1024, 4096)
    assert limit[-10:].mean() < 0.9 * limit[:10].mean()  # it learns
    gaps = [np.mean([np.abs(trajectory(n, s) - limit).max() for s in range(4)]) for n in widths]
    slope = np.polyfit(np.log(widths), np.log(gaps), 1)[0]
    print(dict(zip(widths, gaps, strict=True)), slope)
    assert -0.65 < slope < -0.35
