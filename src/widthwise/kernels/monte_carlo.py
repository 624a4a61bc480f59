"""Kernels of networks without closed forms: means over drawn networks, with an error bar."""

import dataclasses
import functools
import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from widthwise import settings
from widthwise.kernels.rules import AbstractTraced
from widthwise.network.begin import input_signal
from widthwise.network.build import is_weight, specify
from widthwise.network.layer import AbstractWhole, Chain, chain
from widthwise.network.moments import Tangent
from widthwise.network.signal import OUTPUTS

ENTRIES = 2**22  # numbers in the largest array of a tile
ROWS = 1024  # of a tile at most


class KernelEstimates(NamedTuple):
    """`KernelMatrices` by Monte Carlo, and the standard error of each of their entries."""

    nngp: Float[np.ndarray, "n m"]
    ntk: Float[np.ndarray, "n m"]
    nngp_error: Float[np.ndarray, "n m"]
    ntk_error: Float[np.ndarray, "n m"]


class MonteCarlo(AbstractWhole):
    """A network whose kernels at infinite width are estimated from drawn networks of finite width,
    so that layers without closed forms have them too.

    >>> net = Unflatten((4, 4)) >> Conv() >> Relu() >> MaxPool() >> Flatten() >> Readout()
    >>> found = kernel_matrix(MonteCarlo(net, samples=4, width=64), np.eye(16)[:3])
    >>> found.ntk.shape, bool(np.all(found.ntk_error < found.ntk))
    ((3, 3), True)

    It stands wherever a network does. `kernel_matrix` then returns `KernelEstimates`, and a member
    at width inf notes the relative standard error in its Run. At finite widths it is the network.

    With h(x) what the readout reads in a network of weights W, and h'(x) its derivative along a
    Gaussian direction whose entries have the variance of each weight's step size, the estimates are
    means over draws of W and of the direction: of h(x).h(y) for the NNGP, of h'(x).h'(y) and the
    readout's own share h(x).h(y) for the tangent kernel. Their mean is that of the empirical
    kernels over all weights, the readout's included; each draw averages over as many features as
    the network is wide. Weights, steps and the constants of the scaling are those that
    closed forms use.

    The standard error says nothing of the bias of order 1 / width, that by which a network of this
    width differs from its limit in the mean: compare two widths where it matters.

    Errors fall with the root of `samples`, and the bias with `width`; time grows with samples and
    with the square of the width. The same draws serve all rows, so that kernels of different rows
    fit together and every matrix k(X, X) is positive semi-definite.

    Args:
        network: layers that end in `Readout()`, or features: a vector.
        samples: networks drawn, at least 2.
        width: of each.
        seed: of the draws.

    Raises ValueError for settings out of range; TypeError for what is no network.
    """

    source: ClassVar[str] = "novak2019, section 4; jacot2018, section 4"
    network: Chain = eqx.field(converter=chain)
    samples: int = 64
    width: int = 512
    seed: int = 0

    def __check_init__(self):
        settings.whole(self, "samples", low=2)
        settings.whole(self, "width")
        settings.whole(self, "seed", low=0)

    def __repr__(self) -> str:
        numbers = f"samples={self.samples}, width={self.width}, seed={self.seed}"
        return f"MonteCarlo({self.network!r}, {numbers})"


def told(network: Any, found: Any, which: str) -> tuple[str, ...]:
    """What a Run must say of its kernel, "nngp" or "ntk": nothing where it is exact."""
    if not isinstance(found, KernelEstimates):
        return ()
    kernel, error = getattr(found, which), getattr(found, f"{which}_error")
    size = math.sqrt(float(np.mean(kernel**2)))
    relative = math.sqrt(float(np.mean(error**2))) / size if size else 0.0
    return (
        f"Kernel by Monte Carlo: {network.samples} networks of width {network.width}, relative "
        f"standard error {100 * relative:.2g} %, bias of order 1/{network.width}.",
    )


def sampled_rows(network: MonteCarlo, shape: tuple[int, ...]) -> int:
    """Rows of a tile, so that no array in it has more than ENTRIES numbers."""

    def empty(sizes: tuple[int, ...]):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    specs = specify(network, shape, None)
    weights = jax.tree.map(lambda one: empty(one.shape(network.width)), specs, is_leaf=is_weight)
    traced = jax.make_jaxpr(network.apply)(weights, empty(shape))
    made = (x.aval for equation in traced.eqns for x in equation.outvars)
    largest = max((math.prod(x.shape) for x in made), default=1)  # type: ignore[attr-defined]
    return max(1, min(ROWS, 1 << int(math.log2(max(1, ENTRIES // largest)))))


class SampledPath(AbstractTraced):
    """Means over drawn networks."""

    network: MonteCarlo
    name: ClassVar[str] = "sampled"
    why = "kernels are means over drawn networks"

    def most_rows(self) -> int:
        return sampled_rows(self.network, self.sides.x1.shape[1:])

    def computed(self, x1, x2):
        means, errors = _tile(*_keys(self.network), self.own, x1, x2)
        all_four = dict(zip(KernelEstimates._fields, (*means, *errors), strict=True))
        return [all_four[name] for name in self.names]


def sampled_diagonal(network: MonteCarlo, own, x):
    """The diagonals (nngp, ntk) of rows x against themselves."""
    return _diagonal(*_keys(network), own, x)[0]


def sampled_layers(network: MonteCarlo, own, x):
    """The covariance of the features after each layer; the last is that of what leaves."""
    return _layers(*_keys(network), own, x)[0]


def _keys(network: MonteCarlo):
    """The network with its seed left out, so that one compiled function serves all, and a key for
    each draw."""
    keys = jax.random.split(jax.random.key(network.seed), network.samples)
    return dataclasses.replace(network, seed=0), keys


@functools.partial(jax.jit, static_argnums=0)
def _tile(network, keys, own, x1, x2):
    def kernels(draw):
        left = draw.at(x1)
        return draw.kernels(left, left if x2 is None else draw.at(x2), "nf,mf->nm")

    return _over_draws(kernels, network, keys, own, x1.shape[1:])


@functools.partial(jax.jit, static_argnums=0)
def _diagonal(network, keys, own, x):
    def kernels(draw):
        found = draw.at(x)
        return draw.kernels(found, found, "nf,nf->n")

    return _over_draws(kernels, network, keys, own, x.shape[1:])


@functools.partial(jax.jit, static_argnums=0)
def _layers(network, keys, own, x):
    def kernels(draw):
        found, rows = [], x
        for layer, weights in zip(network.sequence, draw.in_sequence(), strict=True):
            rows = jax.vmap(functools.partial(layer.apply, weights))(rows)
            flat = rows.reshape(len(rows), -1)
            found.append(flat @ flat.T / flat.shape[1])
        last = draw.at(x)
        return *found[:-1], draw.kernels(last, last, "nf,mf->nm")[0]

    return _over_draws(kernels, network, keys, own, x.shape[1:])


def _over_draws(kernels, network: MonteCarlo, keys, own, shape: tuple[int, ...]):
    """Means of kernels(draw) over draws, and their standard errors; one draw in memory at once."""

    def of(key):
        return kernels(_Draw.of(network, own, key, shape))

    def add(state, key):
        count, mean, spread = state
        found = of(key)
        gap = jax.tree.map(jnp.subtract, found, mean)
        mean = jax.tree.map(lambda m, g: m + g / count, mean, gap)
        spread = jax.tree.map(lambda s, g, f, m: s + g * (f - m), spread, gap, found, mean)
        return (count + 1, mean, spread), None

    zeros = jax.tree.map(lambda one: jnp.zeros(one.shape), jax.eval_shape(of, keys[0]))
    (_, mean, spread), _ = jax.lax.scan(add, (1.0, zeros, zeros), keys)
    several = len(keys) * (len(keys) - 1)
    return mean, jax.tree.map(lambda one: jnp.sqrt(one / several), spread)


class _Shares(NamedTuple):
    """What a product of one tensor's features adds to the NNGP and to the tangent kernel, and what
    a product of their derivatives adds to the tangent kernel."""

    nngp: Any
    own: Any
    earlier: Any


class _Draw(NamedTuple):
    """One network, and one direction in which its weights move."""

    network: MonteCarlo
    tree: Any  # of its weights
    weights: list[Any]
    direction: list[Any]
    last: tuple[int, ...]  # which weights make outputs; none where the network leaves features
    shares: list[_Shares]

    @classmethod
    def of(cls, network: MonteCarlo, own, key: PRNGKeyArray, shape: tuple[int, ...]) -> "_Draw":
        specs, tree = jax.tree.flatten(specify(network, shape, None), is_leaf=is_weight)
        unread = jax.tree.leaves(network.weights(input_signal(shape)), is_leaf=is_weight)
        tangents = jax.tree.leaves(own, is_leaf=lambda node: isinstance(node, Tangent))
        last = tuple(i for i, weight in enumerate(unread) if weight.fan_out == OUTPUTS)
        sizes = [spec.shape(network.width) for spec in specs]
        ends = np.cumsum([math.prod(size) for size in sizes])
        # in one piece: one generator to compile, however many tensors there are
        numbers = jnp.split(jax.random.normal(key, (2, ends[-1])), ends[:-1], axis=1)
        weights, direction, shares = [], [], []
        for i, (spec, tangent) in enumerate(zip(specs, tangents, strict=True)):
            count = spec.inputs.at(network.width)
            one, other = (part.reshape(sizes[i]) for part in numbers[i])
            weights.append(jnp.sqrt(tangent.carry / count) * one)
            step = 0.0 if i in last else jnp.sqrt(tangent.tangent / count)
            direction.append(step * other)
            if i in last:
                parts = (tangent.variance, tangent.tangent, tangent.carry)
                shares.append(_Shares(*(part / count for part in parts)))
        return cls(network, tree, weights, direction, last, shares)

    def in_sequence(self):
        """The weights layer by layer."""
        return self.network.in_sequence(jax.tree.unflatten(self.tree, self.weights))

    def _apply(self, weights, row):
        return self.network.apply(jax.tree.unflatten(self.tree, weights), row)

    def at(self, x):
        """(features, derivatives) of rows, one pair for each last tensor: what multiplies it in
        the outputs, which are linear in it."""
        return jax.vmap(lambda row: jax.jvp(
            lambda weights: self._features(weights, row), (self.weights,), (self.direction,)
        ))(x)  # fmt: skip

    def _features(self, weights, row):
        if not self.last:
            return [self._apply(weights, row)]

        def output(last):
            tensors = list(weights)
            for i, tensor in zip(self.last, last, strict=True):
                tensors[i] = tensor
            return self._apply(tensors, row)[0]

        return [one.ravel() for one in jax.grad(output)([weights[i] for i in self.last])]

    def kernels(self, left, right, product: str):
        """(nngp, ntk) of two sides."""
        nngp, ntk = 0.0, 0.0
        for i, (a, b, da, db) in enumerate(zip(left[0], right[0], left[1], right[1], strict=True)):
            each = 1 / a.shape[1]
            shares = self.shares[i] if self.last else _Shares(each, 0.0, each)
            plain, moved = jnp.einsum(product, a, b), jnp.einsum(product, da, db)
            nngp += shares.nngp * plain
            ntk += shares.own * plain + shares.earlier * moved
        return nngp, ntk
