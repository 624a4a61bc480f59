"""A step through inducing points: its CPU seconds over rows of the batch, and over rows in all.

    python benchmarks/dkm_minibatch.py

Three hidden ReLU layers, 128 inducing points, 8 columns, Gaussian likelihood. Printed are seconds
of a step of Adam at three batch sizes, and what each further row adds, one number where the
cost is linear; and at one batch size for three numbers of rows in all, whose ratio to the first is
1 where the cost does not depend on them.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from widthwise import Dense, MuP, Readout, Relu
from widthwise.inference import Inducing
from widthwise.learner import Posterior
from widthwise.limits import lookup
from widthwise.limits.dkm.minibatch import first_state, step
from widthwise.problem import Problem
from widthwise.solve import float64

NETWORK = Dense() >> Relu() >> Dense() >> Relu() >> Dense() >> Relu() >> Readout()
BATCHES, ROWS, STEPS = (200, 800, 3200), (3200, 32_000, 320_000), 12
PACE = (0.01, 1000)  # step size, steps


def seconds(rows: int, batch: int) -> float:
    """CPU seconds of a step: the median of some, after one that compiles."""
    rng, times = np.random.default_rng(0), []
    x = rng.normal(size=(rows, 8))
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    learner = Posterior(prior="deep_gp", nu=10.0, noise=0.1, inducing=Inducing(128, batch_size=100))
    problem = Problem(x, y, x[:0], y[:0], 0.0, "regression")
    prepared = lookup(NETWORK, MuP(), learner).prepare(problem, order=0, logs=2)
    bound, begin = prepared.bound, prepared.begin  # type: ignore[attr-defined]
    with float64(), threadpool_limits(1, "blas"):
        fitted, state = first_state(PACE, begin)
        for number in range(STEPS + 1):
            began = time.process_time()
            chosen = rng.integers(rows, size=batch)
            key = jax.random.key(number)
            fitted, state, value = step(
                bound, PACE, fitted, state, jnp.asarray(x[chosen]), jnp.asarray(y[chosen]), key
            )
            value.block_until_ready()
            times.append(time.process_time() - began)
    return float(np.median(times[1:]))


def main() -> None:
    measured = functools.lru_cache(seconds)
    found = [measured(ROWS[0], batch) for batch in BATCHES]
    for batch, one in zip(BATCHES, found, strict=True):
        print(f"batch of {batch} of {ROWS[0]:,} rows: {1e3 * one:.1f} ms a step")
    slopes = 1e6 * np.diff(found) / np.diff(BATCHES)
    print(f"each further row of the batch: {', '.join(f'{slope:.0f}' for slope in slopes)} us")
    for rows in ROWS:
        one = measured(rows, BATCHES[1])
        print(
            f"batch of {BATCHES[1]} of {rows:,} rows: {1e3 * one:.1f} ms a step, "
            f"{one / found[1]:.2f} times the first"
        )


if __name__ == "__main__":
    main()
