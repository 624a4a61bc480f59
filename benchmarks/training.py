"""A training step of a finite network against the floor: its matrix products at NumPy's rate in
the same run. Then four seeds one after another against four seeds in one vmapped step.

    python benchmarks/training.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from timing import best, product_rate

from widthwise import NTK, Dense, GradientDescent, Readout, Relu
from widthwise.finite import FiniteNetwork, train
from widthwise.problem import Problem

ROWS, COLUMNS, OUTPUTS, BATCH, STEPS, SEEDS = 1000, 64, 10, 100, 100, 4


def problem() -> Problem:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, COLUMNS)), rng.normal(size=(ROWS, OUTPUTS))
    return Problem(x, y, x[:0], y[:0], 0.0, "regression")


def together(net: FiniteNetwork, data: Problem, lr: float):
    """Plain steps of all seeds at once."""
    x, y = (jnp.asarray(part, "float32") for part in (data.x_train, data.y_train))
    keys = jax.random.split(jax.random.key(0), SEEDS)

    def step(number, weights):
        rows = (jnp.arange(BATCH) + number * BATCH) % ROWS

        def loss(w):
            return 0.5 * jnp.mean(jnp.sum((net.apply(w, x[rows]) - y[rows]) ** 2, axis=1))

        return jax.tree.map(lambda w, g: w - lr * g, weights, jax.grad(loss)(weights))

    @jax.jit
    @jax.vmap
    def run(key):
        return jax.lax.fori_loop(0, STEPS, step, net.draw(key))

    return lambda: jax.block_until_ready(run(keys))


def main() -> None:
    net, data, rate = Dense() >> Relu() >> Dense() >> Relu() >> Readout(), problem(), 0.5
    flops_a_second = product_rate("float32")
    learner = GradientDescent(steps=STEPS, batch_size=BATCH)
    for width in (64, 256, 1024):
        finite = FiniteNetwork(net, width, COLUMNS, OUTPUTS, NTK())
        weights = width * (COLUMNS + width + OUTPUTS)
        # forward, and back in weights and features; the first layer needs no gradient in x
        floor = BATCH * (6 * weights - 2 * width * COLUMNS) / flops_a_second

        def one(finite=finite, seed=0):
            return train(finite, data, learner, lr=rate, seed=seed, logs=2)

        seconds = best(one, repeats=3)
        many = best(lambda: [one(seed=seed) for seed in range(SEEDS)], repeats=2)
        vmapped = best(together(finite, data, rate), repeats=2)
        print(
            f"width {width}: {1e3 * seconds / STEPS:.3f} ms a step, floor {1e3 * floor:.3f} ms, "
            f"ratio {seconds / STEPS / floor:.2f}; {SEEDS} seeds in turn {many:.2f} s, vmapped "
            f"{vmapped:.2f} s, ratio {many / vmapped:.2f}"
        )


if __name__ == "__main__":
    main()
