"""The path of vectors whose kernels are one function of the cosine: a matrix product, and one
polynomial at any depth.

Two cases: bias-free networks whose nonlinearities are homogeneous, K(x, y) = (|x| |y|)^p g(c), and
any network on rows of one length. g is smooth in sqrt(1 - |c|) on either side of c = 0 (arc-cosine
kernels have square roots at c = 1 and -1, and nowhere else). It is read off the network's rules at
128 points, and the result is compared with them at pairs of rows before it is used.
"""

import math
import threading
from typing import ClassVar, NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Float

from widthwise.kernels.path import (
    ACCURACY,
    CHECKED,
    STORED,
    AbstractPath,
    NotApplicable,
    Precision,
    Sides,
    few,
)
from widthwise.kernels.rules import RulesPath, mirrored
from widthwise.network.begin import readers
from widthwise.network.layer import AbstractLayer

LEAST = 2**21  # entries from which on a fit is worth its second
TILE = 512  # rows of a tile: its cosines stay in cache
NODES = 63  # of a side of c = 0, less one
DEGREES = (8, 12, 25, 49)  # which are compiled; from 13 on in two halves
HALVED = 13
SINGLE = 12  # the highest degree whose powers float32 can add up


class Fit(NamedTuple):
    """K(x, y) = (|x| |y|)^power g(cos), g as polynomials in 2 sqrt(1 - |c|) - 1."""

    power: int
    length: float  # at which g was read
    coefficients: Float[np.ndarray, "k 2 degree"]  # of each kernel, where c >= 0 and elsewhere
    size: Float[np.ndarray, " k"]  # g at c = 1
    why: str


class CosinePath(AbstractPath):
    """Cosines by a matrix product, in float64 but for "fast", then a polynomial."""

    name: ClassVar[str] = "cosine"
    rows = TILE

    def __init__(self, fit: Fit, sides: Sides, names: tuple[str, ...], precision: Precision):
        self.names, self.why, self.fit = names, fit.why, fit
        self.stored = STORED[precision]
        degree = fit.coefficients.shape[2] - 1
        self.kind = self.stored if degree <= SINGLE else np.float64
        product = np.float32 if precision == "fast" else np.float64
        # a row and its copy coincide, for the rules (network/arccos.py) and here
        self.least = product(8 * np.finfo(product).eps)
        self.symmetric = sides.x2 is None
        self.x1, self.scale1 = self._prepared(sides.x1, product)
        self.x2, self.scale2 = (
            (self.x1, self.scale1) if sides.x2 is None else self._prepared(sides.x2, product)
        )
        self.polynomials = [
            [_halves(side, self.kind) for side in both] for both in fit.coefficients
        ]
        self.own = threading.local()  # each thread's buffers

    def _prepared(self, x, product):
        """Rows of length 1, and what their length multiplies the kernels by."""
        length = np.linalg.norm(x, axis=1)
        unit = x / np.where(length > 0, length, 1.0)[:, None]
        scale = (length / self.fit.length) ** self.fit.power
        return unit.astype(product), scale.astype(self.kind)

    def tile(self, a: slice, b: slice):
        from widthwise.kernels.compiled import of_cosines  # Numba takes a second to import

        x1, x2 = self.x1[a], self.x2[b]
        cosines, *found = self._buffers(len(x1), len(x2))
        np.matmul(x1, x2.T, out=cosines)
        rows, columns = self.scale1[a], self.scale2[b]
        for (near, far), size, part in zip(self.polynomials, self.fit.size, found, strict=True):
            of_cosines(cosines, self.least, near, far, self.kind, rows, columns, part)
            if self.symmetric and a == b:
                part[:] = mirrored(part)
                np.fill_diagonal(part, size * rows**2)
        return found

    def _buffers(self, n: int, m: int) -> list[np.ndarray]:
        """The cosines, and a part of each matrix: fresh memory would cost more than the product."""
        kept = getattr(self.own, "buffers", None)
        if kept is None or kept[0].shape != (n, m):
            kinds = (self.x1.dtype, *(self.stored for _ in self.names))
            kept = self.own.buffers = [np.empty((n, m), kind) for kind in kinds]
        return kept

    @classmethod
    def of(
        cls, network: AbstractLayer, own, sides: Sides, names: tuple[str, ...], precision: Precision
    ) -> "CosinePath":
        """Raises NotApplicable, with the reason."""
        if sides.x1.ndim != 2 or readers(network):
            raise NotApplicable("inputs are not plain vectors")
        if sides.x1.shape[1] < 2:
            raise NotApplicable("rows of one number have no angles between them")
        if sides.pairs < LEAST:
            raise NotApplicable(f"there are fewer than {LEAST:,} entries")
        fit = _fit(network, own, sides, names, ACCURACY[precision])
        _check(fit, network, own, sides, names, precision)
        return cls(fit, sides, names, precision)


def _halves(powers: np.ndarray, kind: type) -> tuple[tuple, tuple]:
    """Coefficients as `of_cosines` reads them."""
    low, high = (powers, [0]) if len(powers) <= HALVED else np.split(powers, 2)
    return tuple(map(kind, low)), tuple(map(kind, high))


def _fit(network, own, sides: Sides, names, accuracy: float) -> Fit:
    both = [x for x in sides if x is not None]
    lengths = np.concatenate([np.linalg.norm(x, axis=1) for x in both])
    longest, nonzero = lengths.max(), lengths[lengths > 0]
    if not len(nonzero):
        raise NotApplicable("all rows are zero")
    shortest = nonzero.min()
    equal = len(nonzero) == len(lengths) and longest - shortest <= 1e-3 * accuracy * longest
    length = math.sqrt(shortest) * math.sqrt(longest)
    others = np.full(CHECKED[1], length) if equal else np.geomspace(shortest, longest, CHECKED[1])
    at = (1 + np.cos(np.pi * np.arange(NODES + 1) / NODES)) / 2  # from 1 down to 0
    values = _values(network, own, sides.x1.shape[1], names, at, length, others)
    if not np.isfinite(values).all():
        raise NotApplicable("the kernel is not finite")
    power, why = 0, "all rows have one length"
    if not equal:
        power = _power(values, others, accuracy)
        why = f"the kernel is homogeneous of degree {power} in each row"
        if power == 0 and len(nonzero) < len(lengths):
            raise NotApplicable("rows of zeros have no angle to others")
        values = values[..., :1] * (length / others[0]) ** power
    g = values[..., 0]  # (kernels, 2, nodes)
    chebyshev = np.asarray(scipy.fft.dct(g, type=1, axis=2)) / NODES
    chebyshev[..., [0, -1]] /= 2
    size = np.abs(g).max(axis=(1, 2))
    return Fit(power, length, _polynomials(chebyshev, size, accuracy), g[:, 0, -1], why)


def _values(network, own, columns, names, at, length, others) -> np.ndarray:
    """The kernels (k, 2, nodes, others) at cosines 1 - at^2 and less those."""
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(columns, 2)))[0].T
    cosine, sine = 1 - at**2, at * np.sqrt(2 - at**2)
    x1 = length * np.concatenate([c * cosine[:, None] * plane[0] + sine[:, None] * plane[1]
                                  for c in (1, -1)])  # fmt: skip
    rules = RulesPath(network, own, Sides(x1, others[:, None] * plane[0]), names)
    found = rules.tile(slice(None), slice(None))
    return np.stack(found).reshape(len(names), 2, len(at), len(others))


def _power(values, others, accuracy: float) -> int:
    """The degree of homogeneity in the length of a row; a whole number."""
    size = np.abs(values).max(axis=(0, 1, 2))
    power = round(math.log(size[-1] / size[0]) / math.log(others[-1] / others[0])) if (
        size[0] > 0 and size[-1] > 0
    ) else 0  # fmt: skip
    scaled = values / (others / others[0]) ** power
    apart = np.abs(scaled - scaled[..., :1]).max(axis=(1, 2, 3))
    if np.any(apart > 0.1 * accuracy * np.abs(scaled).max(axis=(1, 2, 3))):
        raise NotApplicable("rows differ in length, and the kernel is not homogeneous in it")
    return power


def _polynomials(chebyshev, size, accuracy: float) -> np.ndarray:
    """The least degree at which what is left out is a quarter of what is allowed."""
    for degree in DEGREES:
        left = np.abs(chebyshev[..., degree + 1 :]).sum(axis=2).max(axis=1)
        if np.all(left <= accuracy / 4 * size):
            cut = chebyshev[..., : degree + 1].reshape(-1, degree + 1)
            powers = np.zeros_like(cut)
            for own, series in zip(powers, cut, strict=True):
                found = np.polynomial.chebyshev.cheb2poly(series)
                own[: len(found)] = found
            return powers.reshape(*chebyshev.shape[:2], degree + 1)
    raise NotApplicable(f"a polynomial of degree {DEGREES[-1]} does not reach {accuracy:g}")


def _check(fit: Fit, network, own, sides: Sides, names, precision: Precision) -> None:
    """Compares the fit with the rules at rows of both sides, longest and shortest among them."""
    rows = few(sides)
    wanted = RulesPath(network, own, rows, names).tile(slice(None), slice(None))
    path = CosinePath(fit, rows, names, precision)
    found = path.tile(slice(None), slice(None))
    scale = np.outer(path.scale1, path.scale2)
    # a tangent kernel falls off with the angle, of which a cosine's rounding leaves so much
    unseen = 32 * np.finfo(path.x1.dtype).eps / ACCURACY[precision]
    apart = 1 - np.abs(path.x1 @ path.x2.T) > unseen**2
    for one, other, size in zip(found, wanted, fit.size, strict=True):
        bound = ACCURACY[precision]
        if np.any((np.abs(one - other) > bound * abs(size) * scale)[apart]):
            raise NotApplicable(f"at some rows it is further than {bound:g} from the rules")
