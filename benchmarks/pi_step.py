"""One step of the pi-limit against the floor of its matrix products, on one thread.

python benchmarks/pi_step.py
"""

import os

os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
    + os.environ.get("XLA_FLAGS", "")
)
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import time  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from timing import product_rate  # noqa: E402

from widthwise.limits.pi import engine, rows  # noqa: E402
from widthwise.limits.pi.pairs import ReluPairs  # noqa: E402

RANK, BATCH, INPUTS, ROWS, OUTPUTS = 400, 64, 64, 51_200, 10
REPEATS = 7


def state_of_rows(rng) -> engine.State:
    operators = []
    for width in (RANK, OUTPUTS):
        b = rng.normal(size=(ROWS, RANK)).astype("float32")
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        a = rng.normal(size=(ROWS, width)).astype("float32") / ROWS
        w = np.ones(ROWS, "float32")
        operators.append(rows.operator_of(a, b, w, 0 * w, "float32"))
    first = rng.normal(size=(INPUTS, RANK)).astype("float32") / np.sqrt(RANK)
    biases = [np.zeros(k, "float32") for k in (RANK, RANK, OUTPUTS)]
    return engine.state_of(jnp.asarray(first), operators, map(jnp.asarray, biases))


def main() -> None:
    rng = np.random.default_rng(0)
    rule = engine.LayerRule(1.0, 0.5)
    rules = engine.Rules((rule,) * 3, (ReluPairs(),) * 2)
    state = state_of_rows(rng)
    x = jnp.asarray(rng.normal(size=(BATCH, INPUTS)), "float32")
    y = jnp.asarray(np.eye(OUTPUTS)[rng.integers(OUTPUTS, size=BATCH)], "float32")
    seconds = []
    for _ in range(REPEATS + 2):
        start = time.process_time()
        carried = engine.forward(rules, state, x)
        gradient = engine.backward(rules, state, carried, (carried.g[-1] - y) / BATCH)
        gradient, _ = engine.clipped(rules, gradient, 0.4)
        state = jax.block_until_ready(engine.step(rules, state, gradient, 0.5))
        seconds.append(time.process_time() - start)
    spent = min(seconds[2:])
    products = 12 * BATCH * ROWS * RANK + 4 * BATCH * ROWS * OUTPUTS
    floor = products / product_rate("float32")
    print(
        f"pi-limit, r = {RANK}, batch {BATCH}, {ROWS:,} rows, two hidden layers, float32: "
        f"{1e3 * spent:.0f} CPU-ms a step; floor {1e3 * floor:.0f} ms "
        f"({products / 1e9:.1f} GFLOP of products); ratio {spent / floor:.2f}"
    )


if __name__ == "__main__":
    main()
