"""Kernels as functions of JAX arrays, for other libraries and for gradients."""

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from widthwise.network.begin import begin, input_signal
from widthwise.network.build import tangents
from widthwise.network.layer import AbstractLayer, AbstractWhole
from widthwise.network.moments import Moments
from widthwise.scaling import NTK, AbstractScaling


class Kernels(NamedTuple):
    """`KernelMatrices` of JAX arrays."""

    nngp: Float[Array, "n m"]
    ntk: Float[Array, "n m"]


def kernel_function(
    network: AbstractLayer,
    inputs: int | tuple[int, ...],
    *,
    scaling: AbstractScaling | None = None,
    width: float = math.inf,
) -> Callable[..., Kernels]:
    """The kernels of a network as a function that JAX can differentiate, compile and map.

    >>> kernels = kernel_function(Dense() >> Relu() >> Readout(), 3)
    >>> jax.grad(lambda x: kernels(x, jnp.eye(3)).ntk.sum())(jnp.ones((2, 3))).shape
    (2, 3)

    It takes (x1, x2), or x1 alone, as `kernel_matrix` does, and computes in the precision of what
    it is given: float32 is enough for smooth nonlinearities only, and a kernel that will be
    inverted wants float64 (`jax.enable_x64`). It holds all pairs at once, and checks shapes only.

    First derivatives are finite where a row meets an equal one too. There, the tangent kernel of a
    network with kinks has none (it falls off with the distance, as a cone does); it is given the
    mean of the slopes on both sides, and k(x, x), as a function of x, its own exact derivative.

    Args:
        network: layers that leave a vector.
        inputs: features of a row, or the shape of a grid of positions with the features last.
        scaling, width: as for `kernel_matrix`.

    Raises ValueError for networks that leave a grid or have layers without a rule, and for
    `MonteCarlo`, which is for `kernel_matrix` only; the function, for inputs of other shapes.
    """
    if isinstance(network, AbstractWhole):
        raise ValueError(f"{network!r} has no rule of moments: ask kernel_matrix for its kernels.")
    if (sentence := network.refusal()) is not None:
        raise ValueError(sentence)
    leaving = network.signal(input_signal(inputs))
    if leaving.shape:
        raise ValueError(f"{network!r} leaves a grid of positions: end it in Flatten().")
    shape = (inputs,) if isinstance(inputs, int) else tuple(inputs)
    wanted = f"rows of them, (n, {', '.join(map(str, shape))})"
    own = tangents(network, inputs, NTK() if scaling is None else scaling, width)

    def kernels(x1: Float[Array, "n *s d"], x2: Float[Array, "m *s d"] | None = None) -> Kernels:
        for x in (x1, x2):
            if x is not None and x.shape[1:] != shape:
                raise ValueError(f"Inputs have shape {x.shape}: give {wanted}.")
        found = network.kernel(own, begin(network, x1, x2)).mixed()
        assert isinstance(found, Moments)
        return Kernels(found.xy, found.ntk)

    return kernels
