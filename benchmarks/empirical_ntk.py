"""empirical_kernel, blockwise, against a full Jacobian of all rows contracted at once: seconds and
bytes of Jacobian held.

    python benchmarks/empirical_ntk.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from timing import best

from widthwise import NTK, Dense, Readout, Relu
from widthwise.finite import FiniteNetwork, empirical_kernel

ROWS, WIDTH, OUTPUTS, BLOCK = 256, 256, 10, 32


def main() -> None:
    net = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
    instance = FiniteNetwork(net, WIDTH, 64, OUTPUTS, NTK())
    weights = instance.draw(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, 64)), "float32")

    @jax.jit
    def whole(weights, x):
        found = jax.jacrev(lambda w: instance.apply(w, x))(weights)
        flat = [part.reshape(ROWS, OUTPUTS, -1) for part in jax.tree.leaves(found)]
        return sum(jnp.einsum("nkp,mkp->nm", part, part) for part in flat) / OUTPUTS

    ours = best(lambda: empirical_kernel(instance.apply, weights, x, block=BLOCK), repeats=3)
    theirs = best(lambda: np.asarray(whole(weights, x)), repeats=3)
    parameters = sum(part.size for part in jax.tree.leaves(weights))
    held, all_held = (4 * rows * OUTPUTS * parameters for rows in (2 * BLOCK, ROWS))
    print(f"{ROWS} rows, {parameters:,} parameters, {OUTPUTS} outputs, mean over outputs")
    print(f"blockwise {ours:.2f} s, {held / 1e9:.2f} GB of Jacobian")
    print(f"whole     {theirs:.2f} s, {all_held / 1e9:.2f} GB of Jacobian")
    print(f"ratio of seconds {ours / theirs:.2f}, of bytes {held / all_held:.2f}")


if __name__ == "__main__":
    main()
