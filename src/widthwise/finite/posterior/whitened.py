"""A finite network as its prior has it: standard normal numbers, the readout's integrated out."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widthwise.finite.instance import FiniteNetwork, Numbers
from widthwise.network.begin import input_signal
from widthwise.network.build import is_weight
from widthwise.network.signal import OUTPUTS


class Observed(NamedTuple):
    """Training rows, their targets, the noise's variance, and how many copies of the outputs there
    are, each with these targets: one, unless the likelihood grows with the width."""

    x: Any
    y: Any
    noise: Any
    copies: Any


class Whitened(eqx.Module):
    """A network with one output, whose tensors are read from one vector of standard normals.

    >>> net = FiniteNetwork(Dense() >> Relu() >> Readout(), 8, 3, 1, NTK())
    >>> Whitened(net).size
    24

    Tensors that start at zero, such as biases without a variance, stay there: the prior knows no
    other value. The readout's are not in the vector: outputs are linear in them, so that given all
    others they are a Gaussian process, of covariance phi phi^T for the features phi in front of
    the readout, constants and the prior's standard deviations included.
    """

    net: FiniteNetwork

    @property
    def size(self) -> int:
        """How many numbers the hidden layers have."""
        return sum(_count(one) for one, ends in self._tensors() if _drawn(one) and not ends)

    def _tensors(self) -> list[tuple[Numbers, bool]]:
        """Each tensor's numbers, and whether it is the readout's."""
        net = self.net
        numbers = jax.tree.leaves(net.numbers, is_leaf=_is_numbers)
        specs = jax.tree.leaves(net.network.weights(input_signal(net.n_inputs)), is_leaf=is_weight)
        return [(one, w.fan_out == OUTPUTS) for one, w in zip(numbers, specs, strict=True)]

    def parameters(self, z: Float[Array, " z"], readout: Float[Array, " f"] | None = None) -> Any:
        """The network's tensors; a readout of zeros, unless it is given."""
        at, found = [0, 0], []
        for one, ends in self._tensors():
            vector = readout if ends else z
            if not _drawn(one) or vector is None:
                found.append(jnp.zeros(one.shape, z.dtype))
                continue
            part = vector[at[ends] : at[ends] + _count(one)]
            at[ends] += _count(one)
            found.append(one.std * part.reshape(one.shape))
        tree = jax.tree.structure(self.net.numbers, is_leaf=_is_numbers)
        return jax.tree.unflatten(tree, found)

    def features(self, z: Float[Array, " z"], x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """phi: what each of the readout's numbers is multiplied with."""
        count = sum(_count(one) for one, ends in self._tensors() if _drawn(one) and ends)

        def output(readout, row):
            return self.net.apply(self.parameters(z, readout), row[None])[0, 0]

        return jax.vmap(jax.grad(output), (None, 0))(jnp.zeros(count, z.dtype), x)

    def log_density(self, z: Float[Array, " z"], data: Observed) -> Float[Array, ""]:
        """log of the posterior's density, up to a constant."""
        evidence = Conditioned.on(self.features(z, data.x), data).log_evidence
        return data.copies * evidence - 0.5 * jnp.sum(z**2)


class Conditioned(NamedTuple):
    """The readout given the features and the targets: mean, Cholesky factor of phi^T phi + noise or
    of phi phi^T + noise, whichever is smaller, and log p(y) of one copy."""

    features: Float[Array, "n f"]
    lower: Any
    weights: Float[Array, "f k"]
    noise: Any
    log_evidence: Float[Array, ""]

    @classmethod
    def on(cls, features: Float[Array, "n f"], data: Observed) -> "Conditioned":
        """Source: rasmussen2006, eqs. (2.11), (2.12) and (2.30)."""
        (rows, count), outputs, y, noise = features.shape, data.y.shape[1], data.y, data.noise
        gram = features.T @ features if count < rows else features @ features.T
        lower = jnp.linalg.cholesky(gram + noise * jnp.eye(len(gram)))
        determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
        right = features.T @ y if count < rows else y
        half = jax.scipy.linalg.solve_triangular(lower, right, lower=True)
        solved = jax.scipy.linalg.solve_triangular(lower, half, lower=True, trans=1)
        if count < rows:
            determinant += (rows - count) * jnp.log(noise)
            fit, weights = (jnp.sum(y**2) - jnp.sum(half**2)) / noise, solved
        else:
            fit, weights = jnp.sum(half**2), features.T @ solved
        evidence = -0.5 * (fit + outputs * (determinant + rows * jnp.log(2 * jnp.pi)))
        return cls(features, lower, weights, noise, evidence)

    def covariance(self, new: Float[Array, "m f"]) -> Float[Array, "m m"]:
        """Of the function at new rows with these features."""
        small = self.features.shape[1] < len(self.features)
        right = new.T if small else self.features @ new.T
        half = jax.scipy.linalg.solve_triangular(self.lower, right, lower=True)
        return self.noise * half.T @ half if small else new @ new.T - half.T @ half


def _is_numbers(node: Any) -> bool:
    return isinstance(node, Numbers)


def _drawn(one: Numbers) -> bool:
    return one.std * one.multiplier != 0


def _count(one: Numbers) -> int:
    return math.prod(one.shape)
