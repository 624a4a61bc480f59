"""Kernels by neural-tangents, in an environment of its own: it does not import on current JAX.

    python3 -m venv peer && peer/bin/pip install neural-tangents==0.6.5 "jax==0.4.28" \
        "jaxlib==0.4.28" "numpy<2" "scipy<1.13"
    peer/bin/python benchmarks/peer.py relu 3 784 2000 float64

Prints CPU seconds of the tangent kernel of so many rows against themselves, compiled before.
"""

import sys
import time

import jax
import neural_tangents
import numpy as np
from neural_tangents import stax


def main(function: str, depth: int, columns: int, rows: int, dtype: str) -> None:
    jax.config.update("jax_enable_x64", dtype == "float64")
    act, bias = {"relu": (stax.Relu(), None), "erf": (stax.Erf(), 0.1)}[function]
    layers = [stax.Dense(1, b_std=bias), act] * depth
    kernel = stax.serial(*layers, stax.Dense(1, b_std=bias))[2]
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype(dtype)
    compiled = jax.jit(lambda x: kernel(x, x, "ntk"))
    compiled(x).block_until_ready()
    began = time.process_time()
    compiled(x).block_until_ready()
    print(neural_tangents.__version__, time.process_time() - began)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5])
