"""The pi-limit whose readout adapts, against the trajectory of its authors' implementation."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from widthwise.limits.pi import engine, rows
from widthwise.solve import float64
from widthwise.tasks.fewshot import FewShot
from widthwise.tasks.fewshot.adapt import hits
from widthwise.tasks.fewshot.drawings import Drawings
from widthwise.tasks.fewshot.episodes import Part, Pixels, labels
from widthwise.tasks.fewshot.readout import Features, PiReadout, _task_slopes
from widthwise.tasks.fewshot.train import meta_train

ORACLE = Path(__file__).parents[1] / "oracle" / "rich" / "pi_readout.npz"
# the authors write the square roots of 2 and of 1/8 with six digits
LEARNER = PiReadout(rank=48, meta_lr=2.0, bias=1.414214, dtype="float64")


@pytest.mark.slow
def test_the_authors_trajectory():
    """Losses, accuracies and weights of 20 outer steps on digits; their step sizes begin twice with
    the first factor of the cosine."""
    known = np.load(ORACLE)
    digits: Any = load_digits()
    x = digits.data / 16
    x = (x - x.mean()) / x.std()
    setting = FewShot(tasks=8, epochs=1, batches=20, inner_lr=0.353553, clip=0.1)
    with float64():
        operator = rows.operator_of(
            known["init_A2"], known["init_B2"], known["init_w2"], 0 * known["init_w2"], "float64"
        )
        zeros = [jnp.zeros(48), jnp.zeros(48)]
        state = Features(engine.state_of(jnp.asarray(known["init_A1"]), [operator], zeros), 0)
    for number, (support, queries) in enumerate(
        zip(known["train_idx"], known["test_idx"], strict=True)
    ):
        pixels = Pixels(x[support], x[queries], labels(5, 1), labels(5, 1))
        right = hits(LEARNER.adapted(state, pixels, setting, 1), labels(5, 1))
        assert right.mean() == pytest.approx(known["acc"][number], abs=1e-6)
        now = state._replace(steps=max(number - 1, 0))  # the authors' schedule starts a step late
        stepped = LEARNER.stepped(now, pixels, setting)
        assert stepped.loss == pytest.approx(known["loss"][number], rel=1e-9)
        state = stepped.state
    np.testing.assert_allclose(state.layers.first, known["final_A1"], rtol=1e-9, atol=1e-12)
    for found, wanted in zip(state.layers.biases, ("final_b1", "final_b2"), strict=True):
        np.testing.assert_allclose(found, known[wanted], rtol=1e-9, atol=1e-12)


def test_the_way_back_is_the_gradient():
    """Against JAX's derivative of the loss after a step of a real readout, written as a kernel."""
    rng = np.random.default_rng(0)
    way, lr = 3, 0.7
    with float64():
        support, queries = (jnp.asarray(rng.normal(size=(2, n, 4))) for n in (6, 9))
        of_support, of_queries = jnp.asarray(labels(3, 2)), jnp.asarray(labels(3, 3))

        def loss(support, queries):
            def of_task(a, b):
                sizes = jnp.linalg.norm(b, axis=1)[:, None] * jnp.linalg.norm(a, axis=1)
                cosine = b @ a.T / sizes
                kernel = sizes * (
                    jnp.sqrt(1 - cosine**2) + (jnp.pi - jnp.arccos(cosine)) * cosine
                ) / (2 * jnp.pi)  # fmt: skip
                out = kernel @ (-lr * (1 / way - jax.nn.one_hot(of_support, way)) / 6)
                return -jnp.mean(jax.nn.log_softmax(out)[jnp.arange(9), of_queries])

            return jax.vmap(of_task)(support, queries).sum()

        found = _task_slopes(support, queries, way, lr, of_support, of_queries)
        total, wanted = jax.value_and_grad(loss, (0, 1))(support, queries)
        np.testing.assert_allclose(found.losses.sum(), total, rtol=1e-12)
        np.testing.assert_allclose(found.support, wanted[0], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(found.queries, wanted[1], rtol=1e-8, atol=1e-12)


def test_it_trains_and_the_best_state_outlives_the_steps():
    rng = np.random.default_rng(0)
    ink = np.repeat(rng.random((9, 784)) < 0.15, 4, axis=0) ^ (rng.random((36, 784)) < 0.1)
    drawings = Drawings(
        "toy", (255 * ink).astype(np.uint8), np.arange(10) * 4, tuple(map(str, range(9)))
    )
    train, validation, test = (Part(drawings, k, np.arange(3) + 3 * k, 1) for k in range(3))
    parts = train, validation, test
    setting = FewShot(
        way=3, tasks=2, epochs=3, batches=3, validation_tasks=10, test_tasks=10, clip=0.1
    )  # fmt: skip
    run = meta_train(PiReadout(rank=16), parts, setting, name="pi")
    assert np.isfinite(run.losses).all() and run.losses[-1] < run.losses[0]
    assert 0 < float(jnp.abs(run.state.layers.first).max()) < 10
    with pytest.raises(ValueError, match="inner_steps is 2"):
        meta_train(PiReadout(rank=16), parts, FewShot(way=3, inner_steps=2), name="pi")
