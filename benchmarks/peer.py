"""Kernels by neural-tangents, in an environment of its own: it does not import on current JAX.

    python3 -m venv peer && peer/bin/pip install neural-tangents==0.6.5 "jax==0.4.28" \
        "jaxlib==0.4.28" "numpy<2" "scipy<1.13"
    peer/bin/python benchmarks/peer.py relu 3 784 2000 float64       # depth, columns, rows
    peer/bin/python benchmarks/peer.py myrtle 5 32 2 float32         # layers, extent, images

Prints CPU seconds of the kernels of so many rows against as many, compiled before: of vectors the
tangent kernel, of images both.
"""

import sys
import time

import jax
import neural_tangents
import numpy as np
from neural_tangents import stax

FILTER = stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5)
CONV = FILTER, stax.Relu()
POOL = (stax.AvgPool((2, 2), strides=(2, 2)),)
IMAGES = {
    "pooled": (*CONV * 5, stax.GlobalAvgPool()),
    "pooled erf": (*(FILTER, stax.Erf()) * 5, stax.GlobalAvgPool()),
    "flat": (*CONV * 5, stax.Flatten()),
    "myrtle": (*CONV * 2, *POOL, *CONV, *POOL, *CONV, *POOL, stax.Flatten()),
}


def main(name: str, depth: int, extent: int, rows: int, dtype: str) -> None:
    jax.config.update("jax_enable_x64", dtype == "float64")
    if name in IMAGES:
        layers, bias, shape, wanted = IMAGES[name], None, (extent, extent, 3), ("nngp", "ntk")
    else:
        act, bias = {"relu": (stax.Relu(), None), "erf": (stax.Erf(), 0.1)}[name]
        layers, shape, wanted = [stax.Dense(1, b_std=bias), act] * depth, (extent,), "ntk"
    kernel = stax.serial(*layers, stax.Dense(1, b_std=bias))[2]
    x, y = np.random.default_rng(0).normal(size=(2, rows, *shape)).astype(dtype)
    compiled = jax.jit(lambda x, y: kernel(x, y, wanted))
    jax.block_until_ready(compiled(x, y))
    began = time.process_time()
    jax.block_until_ready(compiled(x, y))
    print(neural_tangents.__version__, time.process_time() - began)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5])
