"""The empirical tangent kernel of a 784-512-512-10 network, all pairs of its ten outputs: CPU
seconds of each way, and the structured one's ratio to its counted operations at the rate of this
machine's matrix products.

    python benchmarks/empirical.py
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import cpu

from widthwise.finite import empirical_kernel, explain_kernel
from widthwise.solve import float64

SIZES, AFFORDABLE = (784, 512, 512, 10), 3e11  # operations


def network(weights, x):
    for index, (w, b) in enumerate(weights):
        x = x @ w / len(w) ** 0.5 + 0.1 * b
        x = x if index == len(weights) - 1 else jnp.maximum(x, 0)
    return x


def product_rate(dtype: str, size: int = 2048) -> float:
    """Operations a CPU second of JAX's matrix product."""
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), dtype)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / cpu(lambda: product(matrix, matrix).block_until_ready(), 5)


def measure(dtype: str, n_rows: int) -> None:
    random = np.random.default_rng(0)
    pairs = zip(SIZES, SIZES[1:], strict=False)
    weights = [
        (jnp.asarray(random.normal(size=(a, b)), dtype), jnp.asarray(random.normal(size=b), dtype))
        for a, b in pairs
    ]
    x = jnp.asarray(random.normal(size=(n_rows, SIZES[0])), dtype)
    explained, rate = explain_kernel(network, weights, x, outputs="all"), product_rate(dtype)
    for count in explained.counts:
        line = f"{dtype} N={n_rows} {count.way:<12}{count.flops / 1e9:9.3f} GFLOP"
        if count.flops > AFFORDABLE:
            print(line, "  not run")
            continue
        settings: Any = {"outputs": "all", "way": count.way}
        call = functools.partial(empirical_kernel, network, weights, x, **settings)
        seconds = cpu(call, 5 if count.way == "structured" else 1)
        ratio = seconds * rate / count.flops
        print(f"{line} {seconds:8.3f} CPU s, {ratio:.2f} times the floor", flush=True)


def main() -> None:
    for n_rows in (50, 200):
        measure("float32", n_rows)
        with float64():
            measure("float64", n_rows)


if __name__ == "__main__":
    main()
