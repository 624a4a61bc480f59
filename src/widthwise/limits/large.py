"""(K + noise I) a = y for more rows than float64 matrices and factors find memory for."""

import functools
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.kernels import ComputedKernel, StoredKernel, kernel_diagonal, kernel_matrix
from widthwise.kernels.matrix import bytes_needed
from widthwise.limits.evidence import Which
from widthwise.limits.noise import least_noise, negative_evidence
from widthwise.memory import sized
from widthwise.network.layer import AbstractLayer
from widthwise.progress import Progress
from widthwise.resources import Resources
from widthwise.scaling import AbstractScaling
from widthwise.solve import (
    AbstractSymmetric,
    Nystrom,
    PackedFactor,
    Quadrature,
    Solution,
    blocks_of,
    conjugate_gradients,
    quadrature,
)
from widthwise.solve.conjugate import Product
from widthwise.solve.packed import BLOCK

Way = Literal["whole", "packed", "tiles"]
PANELS = 3 * 4 * BLOCK  # bytes for each row of what a packed factor works on
FEWEST, SHARE = 200, 10  # columns of the preconditioner: at least, and at most one of so many
SQUARES = 6  # matrices of landmarks that stand beside their columns while it is made
# Of the residual; a product that the factor preconditions is worth three digits, others a tenth of
# one. Predictions of 10,000 images are then 4e-5 from the exact ones (benchmarks/RESULTS.md).
PACKED_LEFT, TILES_LEFT = 1e-8, 1e-5
STEPS, SIGNS = 40, 8  # of the quadrature of the evidence: products, and random vectors
# Relative to the mean of the diagonal: below it, the entries' own errors are larger (path.py).
LEAST_NOISE = 1e-6


def way(rows: int, others: int, width: int, resources: Resources) -> Way:
    """How a kernel matrix of so many rows is solved with, to predict so many others.

    In float64 with its factor beside it ("whole"); in float32 with its factor below its diagonal
    ("packed"); or tile by tile, for conjugate gradients ("tiles").

    Raises MemoryError where there is too little for any of them.
    """
    have = resources.bytes
    enough = have is None or bytes_needed(rows, rows + others) <= have
    return "whole" if enough and resources.store is None else _past_whole(rows, width, have)


def _past_whole(rows: int, width: int, have: int | None) -> Way:
    """The way where the matrix is not whole."""
    inputs = _inputs(rows, width)
    if have is None or 4 * rows**2 + PANELS * rows + inputs <= have:
        return "packed"
    least = inputs + _landmarks_need(min(FEWEST, rows), rows)
    if least > have:
        raise MemoryError(
            f"Solves with the kernel of {rows:,} rows need {sized(least)} and {sized(have)} may be "
            "used: use fewer rows, or more memory."
        )
    return "tiles"


def _landmarks_need(count: int, rows: int) -> int:
    """Bytes of a preconditioner of so many columns."""
    return 8 * count * (rows + SQUARES * count)


def _inputs(rows: int, width: int) -> int:
    """Bytes of rows as they came, checked, and as the kernel's path wants them."""
    return 3 * 8 * rows * width


class System:
    """The kernel matrix of some rows, to be solved with at any noise; built when first needed, and
    not pickled.

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
        self.network, self.x, self.kernel, self.scaling = network, x, kernel, scaling
        self.resources = resources
        self._prepared: tuple[float, Product] | None = None

    def __getstate__(self):
        kept = {name: value for name, value in self.__dict__.items() if name != "matrix"}
        return {**kept, "_prepared": None}

    @functools.cached_property
    def matrix(self) -> AbstractSymmetric:
        resources, settings = self.resources, self._settings
        rows, width = self.x.shape
        packed = _past_whole(rows, width, resources.bytes) == "packed"
        if resources.store is not None:
            stored = StoredKernel.of(
                self.network, self.x, resources.store, cluster=resources.cluster,
                progress=resources.progress, **settings,
            )  # fmt: skip
            return PackedFactor(stored.upper()) if packed else stored
        if packed:
            found = kernel_matrix(self.network, self.x, progress=resources.progress, **settings)
            return PackedFactor(found)
        return ComputedKernel(self.network, self.x, **settings)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"which": self.kernel, "precision": "float32", "scaling": self.scaling}

    @property
    def told(self) -> str:
        """Where the matrix was while it was solved with."""
        rows = f"The kernel of {self.matrix.size:,} rows"
        if isinstance(self.matrix, PackedFactor):
            return f"{rows} was held in float32, with its factor below the diagonal"
        if isinstance(self.matrix, StoredKernel):
            return f"{rows} was read from its store"
        return f"{rows} was computed anew in every product"

    def entries(
        self, x1: Float[np.ndarray, "m d"], x2: Float[np.ndarray, "p d"] | None = None
    ) -> Float[np.ndarray, "m p"]:
        """Other parts of the same kernel."""
        return kernel_matrix(self.network, x1, x2, **self._settings)

    def solve(self, right: Float[np.ndarray, "n k"], *, noise: float) -> Solution:
        """(K + noise I)^-1 right.

        Raises NotSolvable, in a sentence with the way out.
        """
        if self._prepared is None or self._prepared[0] != noise:
            self._prepared = noise, self._preconditioner(noise)
        left = PACKED_LEFT if isinstance(self.matrix, PackedFactor) else TILES_LEFT
        return conjugate_gradients(
            lambda v: self.product(v) + noise * v, self._prepared[1], right, tolerance=left
        )

    def product(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """K right."""
        label, show = "a product with the kernel matrix", self.resources.progress
        with Progress(label, 1.0, show=show) as bar:
            return self.matrix.product(right, bar.advance)

    def quadrature(self, y: Float[np.ndarray, "n k"]) -> Quadrature:
        """Of the columns of y, and of random signs behind them."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(y), SIGNS))
        return quadrature(self.product, np.hstack([y, signs]), STEPS)

    def _preconditioner(self, noise: float) -> Product:
        if isinstance(self.matrix, PackedFactor):
            self.matrix.factor(noise)
            return self.matrix.solve
        have, (count, width) = self.resources.bytes, self.x.shape
        assert have is not None  # or the matrix would be packed
        room = have - _inputs(count, width)
        # the positive root of what they need = room
        most = int((np.sqrt(count**2 + SQUARES * room / 2) - count) / (2 * SQUARES))
        landmarks = min(count, max(FEWEST, min(count // SHARE, most)))
        chosen = np.random.default_rng(0).choice(count, landmarks, replace=False)
        columns = np.empty((count, landmarks))
        for part in blocks_of(count, BLOCK):
            columns[part] = self.entries(self.x[part], self.x[chosen])
        return Nystrom(columns, columns[chosen], noise).solve


class Chosen(NamedTuple):
    """The noise of the largest evidence, and what to say of it."""

    noise: float
    told: str


def best_noise(system: System, y: Float[np.ndarray, "n k"]) -> Chosen:
    """The noise variance of the largest log evidence, which a quadrature estimates.

    The determinant's error, of few random vectors, is nearly the same at every noise.
    """
    found, columns = system.quadrature(y), y.shape[1]

    def by_quadrature(noise: float) -> float:
        fit = found.of(lambda value: 1 / (np.maximum(value, 0.0) + noise))[:columns].sum()
        spread = found.of(lambda value: np.log(np.maximum(value, 0.0) + noise))[columns:].mean()
        return negative_evidence(fit, spread, y)

    diagonal = kernel_diagonal(system.network, system.x, scaling=system.scaling)
    scale = float(np.mean(getattr(diagonal, system.kernel)))
    noise, _ = least_noise(by_quadrature, scale, y, LEAST_NOISE)
    return Chosen(
        noise,
        f"The log evidence, estimated by {STEPS} products and {SIGNS} random vectors, chose a "
        f"noise variance of {noise:.3g}.",
    )
