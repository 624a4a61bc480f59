"""The path of chains on vectors: a matrix product, and each of its entries through all layers.

Error functions and functions with a kink need one inverse trigonometric function each, and that
one square root and one polynomial, so that an entry stays in cache, in vector registers and in
float64 from the product of two inputs to the kernels. What a row alone brings to each layer, its
variance, is that of the rules.
"""

import functools
import math
import threading
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from widthwise.kernels.path import (
    ACCURACY,
    STORED,
    AbstractPath,
    NotApplicable,
    Precision,
    Sides,
    few,
)
from widthwise.kernels.rules import RulesPath, mirrored, padded
from widthwise.network.arccos import SERIES
from widthwise.network.begin import readers
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Identity
from widthwise.network.nonlinear.rectified import AbstractKinked
from widthwise.network.nonlinear.smooth import Erf
from widthwise.network.pointwise import AbstractNonlinearity
from widthwise.solve.precision import float64

TILE = 256  # rows of a tile: its products stay in cache
# Entries times functions from which on the path is worth what it compiles and checks at first: they
# are a quarter of a second apart then, and those a second, but hundredths the next time.
LEAST = 2**24
ROUNDED = 16 * np.finfo(np.float64).eps  # what cosines lack of 1 by rounding
NONE, ERROR_FUNCTION, KINK = -1, 0, 1  # functions, as compiled code reads them
# In two parts, for LLVM leaves loops over more than 14 powers as they are.
HALVES = tuple(SERIES[:10]), tuple(SERIES[10:])


class Function(NamedTuple):
    """Duals are one arcsin(z) + other, z = inner K / sqrt((1 + inner a) (1 + inner b)), of error
    functions, and one K + other E[max(u, 0) max(v, 0)] of those with a kink."""

    kind: int = NONE
    one: float = 0.0
    other: float = 0.0
    inner: float = 0.0


class Step(NamedTuple):
    """Affine layers, as (variance, bias, carry, tangent, own) of all of them together, and the
    function behind them; none behind the last."""

    affine: tuple[float, ...]
    function: Function = Function()
    layer: AbstractNonlinearity | None = None


class Side(NamedTuple):
    """Rows; of each step and row, the factor of cosines and the standard deviation; and each row's
    kernels with itself."""

    x: Float[np.ndarray, "n d"]
    factors: Float[np.ndarray, "steps 2 n"]
    own: dict[str, Float[np.ndarray, " n"]]


class ChainPath(AbstractPath):
    """Products of inputs in float64, then the recursion of the layers, entry by entry."""

    name: ClassVar[str] = "chain"
    rows = TILE
    why = "all functions of the chain have a kink or are error functions"

    def __init__(self, steps: list[Step], sides: Sides, names: tuple[str, ...], stored: type):
        self.names, self.stored = names, stored
        self.kinds = np.array([step.function.kind for step in steps])
        self.numbers = np.array([(*s.affine, s.function.one, s.function.other) for s in steps])
        self.numbers[0, [0, 3]] /= sides.x1.shape[1]  # inputs enter as a mean over features
        self.symmetric = sides.x2 is None
        self.one = _side(steps, sides.x1)
        self.two = self.one if sides.x2 is None else _side(steps, sides.x2)
        self.buffers = threading.local()  # of each thread

    def tile(self, a: slice, b: slice):
        from widthwise.kernels.compiled import through_layers  # Numba takes a second to import

        x1, x2 = self.one.x[a], self.two.x[b]
        products, nngp, ntk = self._buffers(len(x1), len(x2))
        np.matmul(x1, x2.T, out=products)
        through_layers(
            products, self.one.factors, self.two.factors, (a.start, b.start), self.kinds,
            self.numbers, ROUNDED, HALVES, nngp, ntk,
        )  # fmt: skip
        found = {"nngp": nngp, "ntk": ntk}
        if self.symmetric and a == b:
            for name in self.names:
                found[name][:] = mirrored(found[name])
                np.fill_diagonal(found[name], self.one.own[name][a])
        return [found[name] for name in self.names]

    def _buffers(self, n: int, m: int) -> list[np.ndarray]:
        """The products, and a part of each matrix: fresh memory would cost more than those."""
        kept = getattr(self.buffers, "kept", None)
        if kept is None or kept[0].shape != (n, m):
            sizes = [(n if name in self.names else 0, m) for name in ("nngp", "ntk")]
            parts = [np.empty(size, self.stored) for size in sizes]
            kept = self.buffers.kept = [np.empty((n, m)), *parts]
        return kept

    @classmethod
    def of(
        cls, network: AbstractLayer, own, sides: Sides, names: tuple[str, ...], precision: Precision
    ) -> "ChainPath":
        """Raises NotApplicable, with the reason."""
        if sides.x1.ndim != 2 or readers(network):
            raise NotApplicable("inputs are not plain vectors")
        steps = _steps(network, own)
        if sides.pairs * (len(steps) - 1) < LEAST:
            raise NotApplicable("there is too little to do")
        checked = cls(steps, few(sides), names, STORED[precision])
        _check(checked, network, own, few(sides), ACCURACY[precision])
        return cls(steps, sides, names, STORED[precision])


def _steps(network: AbstractLayer, own) -> list[Step]:
    """The chain that a network is; NotApplicable where a layer is none of those of the path."""
    nothing = (1.0, 0.0, 1.0, 0.0, 0.0)
    steps, affine = [], nothing
    for layer, weights in zip(network.sequence, network.in_sequence(own), strict=True):
        if isinstance(layer, (Dense, Readout)):
            weight, bias = weights.weight, weights.bias
            numbers = weight.variance, bias.variance, weight.carry, weight.tangent, bias.tangent
            affine = _after(affine, tuple(map(float, numbers)))
        elif isinstance(layer, (AbstractKinked, Erf)):
            steps.append(Step(affine, _function(layer), layer))
            affine = nothing
        elif not isinstance(layer, Identity):
            raise NotApplicable(f"{layer!r} is none of its layers")
    return [*steps, Step(affine)]


def _function(layer: AbstractKinked | Erf) -> Function:
    if isinstance(layer, AbstractKinked):
        return Function(KINK, *map(float, layer.parts))
    a, b, c = float(layer.a), float(layer.b), float(layer.c)
    return Function(ERROR_FUNCTION, a**2 * 2 / math.pi, c**2, 2 * b**2)


def _after(first: tuple[float, ...], then: tuple[float, ...]) -> tuple[float, ...]:
    """Two affine layers as one."""
    variance, bias, carry, tangent, own = first
    later, added, carried, own_tangent, own_bias = then
    return (
        later * variance,
        later * bias + added,
        carried * carry,
        carried * tangent + own_tangent * variance,
        carried * own + own_tangent * bias + own_bias,
    )


def _side(steps: list[Step], x: Float[np.ndarray, "n d"]) -> Side:
    factors = np.zeros((len(steps), 2, len(x)))
    k, t = np.sum(x * x, axis=1) / x.shape[1], np.zeros(len(x))
    for step, (factor, root) in zip(steps, factors, strict=True):
        variance, bias, carry, tangent, own = step.affine
        k, t = variance * k + bias, carry * t + tangent * k + own
        if step.layer is None:
            continue
        if step.function.kind == KINK:
            root[:] = np.sqrt(k)
            np.divide(1, root, where=root > 0, out=factor)
        else:
            factor[:] = np.sqrt(step.function.inner / (1 + step.function.inner * k))
        with float64():
            found = _with_themselves(step.layer, padded(k))
        k, slope = (np.asarray(part)[: len(x)] for part in found)
        t = t * slope
    return Side(x, factors, {"nngp": k, "ntk": t})


@functools.partial(jax.jit, static_argnums=0)
def _with_themselves(layer: AbstractNonlinearity, variances: Float[Array, " n"]):
    """(dual, slope) of inputs and themselves, by the rules."""
    return jax.vmap(lambda a: (layer.dual(a, a, a), layer.slope(a, a, a)))(variances)


def _check(path: ChainPath, network, own, sides: Sides, accuracy: float) -> None:
    """Compares the path with the rules."""
    rows, columns = (slice(0, len(x)) for x in (sides.x1, sides.other))
    wanted = RulesPath(network, own, sides, path.names).tile(rows, columns)
    found = path.tile(rows, columns)
    # behind a kink, an angle's rounding leaves so much
    unseen = 32 * np.finfo(np.float64).eps / accuracy
    lengths = np.outer(*(np.linalg.norm(x, axis=1) for x in (sides.x1, sides.other)))
    apart = lengths - np.abs(sides.x1 @ sides.other.T) >= unseen**2 * lengths
    for name, one, other in zip(path.names, found, wanted, strict=True):
        size = np.sqrt(np.outer(path.one.own[name], path.two.own[name]))
        if not np.all((np.abs(one - other) <= accuracy * size)[apart]):
            raise NotApplicable(f"at some rows it is further than {accuracy:g} from the rules")
