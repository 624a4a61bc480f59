"""(K + noise I) a = y for more rows than float64 matrices and factors find memory for."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.kernels import ComputedKernel, StoredKernel, kernel_diagonal, kernel_matrix
from widthwise.kernels.matrix import bytes_needed
from widthwise.limits.evidence import Which
from widthwise.limits.noise import least_noise
from widthwise.memory import sized
from widthwise.network.layer import AbstractLayer
from widthwise.progress import Progress
from widthwise.resources import Resources
from widthwise.scaling import AbstractScaling
from widthwise.solve import (
    Nystrom,
    PackedFactor,
    Quadrature,
    Solution,
    conjugate_gradients,
    quadrature,
)
from widthwise.solve.symmetric import AbstractSymmetric

Way = Literal["whole", "packed", "tiles"]
PANEL = 4096  # bytes for each row, and three times, of what a packed factor works on
LANDMARKS = (200, 3000)  # columns of the preconditioner, fewest and most
WORK = 5  # matrices of landmarks' columns that stand beside each other while it is made
# Of the residual; a product that the factor preconditions is worth three digits, others a tenth.
LEFT: dict[Way, float] = {"whole": 1e-8, "packed": 1e-8, "tiles": 1e-6}
STEPS, SIGNS = 40, 8  # of the quadrature of the evidence: products, and random vectors
# Relative to the mean of the diagonal: below it, the entries' own errors are larger (path.py).
LEAST_NOISE = 1e-6


def way(rows: int, others: int, width: int, resources: Resources) -> Way:
    """How a kernel matrix of so many rows is solved with, to predict so many others.

    In float64 with its factor beside it ("whole"); in float32 with its factor below its diagonal
    ("packed"); or tile by tile, for conjugate gradients ("tiles").

    Raises MemoryError where there is too little for any of them.
    """
    have, asked = resources.bytes, resources.store is not None
    if have is None or (not asked and bytes_needed(rows, rows + others) <= have):
        return "whole"
    inputs = _inputs(rows, width)
    if 4 * rows**2 + 3 * PANEL * rows + inputs <= have:
        return "packed"
    least = inputs + 8 * rows * WORK * min(LANDMARKS[0], rows)
    if least > have:
        raise MemoryError(
            f"Solves with the kernel of {rows:,} rows need {sized(least)} and {sized(have)} may be "
            "used: use fewer rows, or more memory."
        )
    return "tiles"


def _inputs(rows: int, width: int) -> int:
    """Bytes of rows as they came, checked, and as the kernel's path wants them."""
    return 3 * 8 * rows * width


class System:
    """The kernel matrix of some rows, to be solved with at any noise.

    >>> net = Dense() >> Relu() >> Readout()
    >>> system = System(net, np.eye(3), "nngp", scaling=NTK(), resources=Resources(memory="1MB"))
    >>> found = system.solve(np.eye(3), noise=1.0)
    >>> found.residual < 1e-8
    True

    Args:
        network, x: whose kernel, at which rows.
        kernel: "nngp" or "ntk", whose entries are known to 3e-7.
        scaling: of the network.
        resources: memory, and a store and a cluster if there are any; with a store its tiles are
            made or read first.
    """

    def __init__(
        self,
        network: AbstractLayer,
        x: Float[np.ndarray, "n d"],
        kernel: Which,
        *,
        scaling: AbstractScaling,
        resources: Resources,
    ):
        self._progress, self._x = resources.progress, x
        self.way: Way = way(len(x), 0, x.shape[1], resources)
        self._memory = resources.bytes
        settings = {"which": kernel, "precision": "float32", "scaling": scaling}
        self._entries = functools.partial(kernel_matrix, network, **settings)
        stored = None
        if resources.store is not None:
            stored = StoredKernel.of(
                network, x, resources.store, cluster=resources.cluster,
                progress=resources.progress, **settings,
            )  # fmt: skip
        if self.way == "packed":
            if stored is None:
                square = self._entries(x, progress=resources.progress)
            else:
                square = stored.upper()
            self.matrix: AbstractSymmetric = PackedFactor(square)
        else:
            self.matrix = stored or ComputedKernel(network, x, **settings)
        diagonal = getattr(kernel_diagonal(network, x, scaling=scaling), kernel)
        self.scale = float(np.mean(diagonal))
        self._prepared: tuple[float, Callable] | None = None

    @property
    def told(self) -> str:
        """Where the matrix was while it was solved with."""
        rows = f"The kernel of {self.matrix.size:,} rows"
        if self.way == "packed":
            return f"{rows} was held in float32, with its factor below the diagonal"
        if isinstance(self.matrix, StoredKernel):
            return f"{rows} was read from its store"
        return f"{rows} was computed anew in every product"

    def solve(self, right: Float[np.ndarray, "n k"], *, noise: float) -> Solution:
        """(K + noise I)^-1 right.

        Raises NotSolvable, in a sentence with the way out.
        """
        if self._prepared is None or self._prepared[0] != noise:
            self._prepared = noise, self._preconditioner(noise)
        return conjugate_gradients(
            lambda v: self.product(v) + noise * v, self._prepared[1], right,
            tolerance=LEFT[self.way],
        )  # fmt: skip

    def product(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """K right."""
        with Progress("a product with the kernel matrix", 1.0, show=self._progress) as bar:
            return self.matrix.product(right, bar.advance)

    def quadrature(self, y: Float[np.ndarray, "n k"]) -> Quadrature:
        """Of the columns of y, and of random signs behind them."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(y), SIGNS))
        return quadrature(self.product, np.hstack([y, signs]), STEPS)

    def _preconditioner(self, noise: float):
        if isinstance(self.matrix, PackedFactor):
            self.matrix.factor(noise)
            return self.matrix.solve
        x, count = self._x, self.matrix.size
        fewest, most = LANDMARKS
        free = most if self._memory is None else self._memory - _inputs(count, x.shape[1])
        room = free // (8 * count * WORK)
        landmarks = min(count, max(fewest, min(most, room)))
        chosen = np.random.default_rng(0).choice(count, landmarks, replace=False)
        columns = self._entries(x, x[chosen]).astype(np.float64)
        return Nystrom(columns, columns[chosen], noise).solve


class Chosen(NamedTuple):
    """The noise of the largest evidence, and what to say of it."""

    noise: float
    told: str


def best_noise(system: System, y: Float[np.ndarray, "n k"]) -> Chosen:
    """The noise variance of the largest log evidence, which a quadrature estimates.

    The determinant's error, of few random vectors, is nearly the same at every noise.
    """
    found, (rows, columns) = system.quadrature(y), y.shape

    def negative_evidence(noise: float) -> float:
        fit = found.of(lambda value: 1 / (np.maximum(value, 0.0) + noise))[:columns].sum()
        spread = found.of(lambda value: np.log(np.maximum(value, 0.0) + noise))[columns:].mean()
        return 0.5 * (fit + columns * spread + rows * columns * np.log(2 * np.pi))

    noise, _ = least_noise(negative_evidence, system.scale, y, LEAST_NOISE)
    return Chosen(
        noise,
        f"The log evidence, estimated by {STEPS} products and {SIGNS} random vectors, chose a "
        f"noise variance of {noise:.3g}.",
    )
