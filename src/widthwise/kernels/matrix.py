"""Kernel matrices of infinitely wide networks, tile by tile, the symmetric half only."""

import functools
import math
from typing import Literal, NamedTuple, overload

import numpy as np
from jaxtyping import Float, Num

from widthwise.kernels.chain import ChainPath
from widthwise.kernels.cosine import CosinePath
from widthwise.kernels.displacements import DisplacementsPath
from widthwise.kernels.images import ImagesPath
from widthwise.kernels.monte_carlo import (
    KernelEstimates,
    MonteCarlo,
    SampledPath,
    sampled_diagonal,
    sampled_layers,
    sampled_rows,
)
from widthwise.kernels.path import STORED, AbstractPath, NotApplicable, Precision, Sides
from widthwise.kernels.rules import RulesPath, alone, each_layer, padded, tile_rows
from widthwise.kernels.tiles import fill
from widthwise.memory import check_free, cores
from widthwise.network.begin import check_rows, input_signal
from widthwise.network.build import tangents
from widthwise.network.layer import AbstractLayer
from widthwise.scaling import NTK, AbstractScaling
from widthwise.solve.precision import float64

Kernel = Literal["nngp", "ntk"]
BOTH: tuple[Kernel, Kernel] = ("nngp", "ntk")
FAST = CosinePath, ChainPath, ImagesPath, DisplacementsPath  # tried before the rules, in this order


class KernelMatrices(NamedTuple):
    """nngp: covariance of the outputs at initialisation. ntk: tangent kernel."""

    nngp: Float[np.ndarray, "n m"]
    ntk: Float[np.ndarray, "n m"]


class KernelDiagonals(NamedTuple):
    """The diagonals of `KernelMatrices` of rows against themselves."""

    nngp: Float[np.ndarray, " n"]
    ntk: Float[np.ndarray, " n"]


class Explanation(NamedTuple):
    """Which path computes a kernel matrix, why, and why the faster ones do not."""

    path: str
    why: str
    others: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.why}."]
        lines += [f"not {name}: {reason}." for name, reason in self.others]
        return "\n".join(lines)


@overload
def kernel_matrix(
    network: AbstractLayer,
    x1: Num[np.ndarray, "n *s d"],
    x2: Num[np.ndarray, "m *s d"] | None = None,
    *,
    which: Kernel,
    precision: Precision = "float64",
    scaling: AbstractScaling | None = None,
    width: float = math.inf,
    out: Float[np.ndarray, "n m"] | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "n m"]: ...


@overload
def kernel_matrix(
    network: AbstractLayer,
    x1: Num[np.ndarray, "n *s d"],
    x2: Num[np.ndarray, "m *s d"] | None = None,
    *,
    which: tuple[Kernel, Kernel] = BOTH,
    precision: Precision = "float64",
    scaling: AbstractScaling | None = None,
    width: float = math.inf,
    out: tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]] | None = None,
    progress: bool = False,
) -> KernelMatrices | KernelEstimates: ...


def kernel_matrix(
    network, x1, x2=None, *, which=BOTH, precision: Precision = "float64", scaling=None,
    width=math.inf, out=None, progress=False,
):  # fmt: skip
    """The NNGP and tangent kernels of a network.

    >>> net = Dense() >> Relu() >> Readout()
    >>> kernel_matrix(net, np.eye(3)).ntk.shape
    (3, 3)
    >>> kernel_matrix(net, np.eye(3), which="ntk", precision="float32").dtype
    dtype('float32')

    Args:
        network: layers; a network that does not end in `Readout()` gives its last features'.
            `MonteCarlo(network)` gives `KernelEstimates`, with their standard errors.
        x1, x2: rows of inputs, or grids of positions with the features last (images are n, height,
            width, channels); without x2, x1 against itself.
        which: "nngp" or "ntk" for that matrix alone, at half the memory.
        precision: "float64" to 1e-10, "float32" to 3e-7 and "fast" to 5e-4 of the geometric mean
            of the diagonal entries; the latter two are stored in float32. "fast" forms cosines in
            float32: rows that nearly coincide may then make the matrix indefinite.
        scaling: `NTK()` unless given; it decides what each layer adds to the tangent kernel.
        width: the width whose constants enter; only the standard parametrization's differ.
        out: where to write, arrays of that shape and type (`np.lib.format.open_memmap` makes one
            in a file); one for each matrix.
        progress: whether to show entries a second and the time left, on a terminal.

    Raises ValueError for inputs without rows and features or not finite, for networks that leave a
    grid of positions or have layers without a rule at infinite width, and MemoryError for matrices
    that do not fit into memory, before anything is computed.
    """
    sides, own = _prepared(network, x1, x2, which, precision, scaling, width)
    names = _names(network, which)
    kind = STORED[precision]
    size = len(sides.x1), len(sides.other)
    if out is None:
        check_memory(*size, len(names), np.dtype(kind).itemsize)
        found = [np.empty(size, kind) for _ in names]
    else:
        found = _checked_out(out, which, size, kind)
    path, _ = _choose(network, own, sides, names, precision)
    fill(found, path, sides, threads=cores(), progress=progress)
    _check_finite(network, found)
    if isinstance(which, str):
        return found[0]
    return (KernelEstimates if isinstance(network, MonteCarlo) else KernelMatrices)(*found)


def explain(
    network: AbstractLayer,
    x1: Num[np.ndarray, "n *s d"],
    x2: Num[np.ndarray, "m *s d"] | None = None,
    *,
    which: Kernel | tuple[Kernel, Kernel] = BOTH,
    precision: Precision = "float64",
    scaling: AbstractScaling | None = None,
    width: float = math.inf,
) -> Explanation:
    """The path that `kernel_matrix` takes with these arguments, and why.

    >>> net = Dense() >> Relu() >> Readout()
    >>> print(explain(net, np.eye(3)))
    rules: every layer has a rule.
    not cosine: there are fewer than 2,097,152 entries.
    not chain: there is too little to do.
    not images: inputs are neither images nor sequences.
    not displacements: inputs are vectors.

    Arguments and errors as for `kernel_matrix`; nothing is computed but what the choice reads.
    """
    sides, own = _prepared(network, x1, x2, which, precision, scaling, width)
    path, others = _choose(network, own, sides, _names(network, which), precision)
    return Explanation(path.name, path.why, others)


def chosen_path(
    network: AbstractLayer,
    x: Num[np.ndarray, "n *s d"],
    *,
    which: Kernel,
    precision: Precision,
    scaling: AbstractScaling | None = None,
) -> AbstractPath:
    """The path by which tiles of rows against themselves are computed; raises as `kernel_matrix`
    does."""
    sides, own = _prepared(network, x, None, which, precision, scaling, math.inf)
    return _choose(network, own, sides, (which,), precision)[0]


def kernel_block(
    network: AbstractLayer,
    x1: Num[np.ndarray, "n *s d"],
    x2: Num[np.ndarray, "m *s d"] | None,
    *,
    which: Kernel,
    precision: Precision,
    scaling: AbstractScaling,
) -> Float[np.ndarray, "n m"]:
    """`kernel_matrix` in one thread, for callers who have one for each block."""
    sides, own = _prepared(network, x1, x2, which, precision, scaling, math.inf)
    found = [np.empty((len(sides.x1), len(sides.other)), STORED[precision])]
    path, _ = _choose(network, own, sides, (which,), precision)
    fill(found, path, sides, threads=1, progress=False)
    _check_finite(network, found)
    return found[0]


def _check_finite(network: AbstractLayer, found: list[np.ndarray]) -> None:
    if not all(np.isfinite(row).all() for whole in found for row in whole):
        raise ValueError(
            f"The kernel of {network!r} is not finite on these rows: rescale them, or look for a "
            "function in it that is not finite on all numbers."
        )


def _prepared(network, x1, x2, which, precision, scaling, width):
    """The sides and what each layer's weights do; raises as `kernel_matrix` says."""
    sides = Sides(*checked_sides(x1, x2))
    check_rules(network)
    for x in sides:
        if x is not None:
            check_rows(network, x)
    if not width >= 1:
        raise ValueError(f"width is {width}: give a positive number, or inf.")
    if which not in ("nngp", "ntk", BOTH):
        raise ValueError(f'which is {which!r}: give "nngp", "ntk", or {BOTH} for both.')
    if precision not in STORED:
        raise ValueError(f"precision is {precision!r}: give one of {', '.join(STORED)}.")
    _check_vector(network, sides.x1.shape[1:])
    with float64():
        scaling = NTK() if scaling is None else scaling
        return sides, tangents(network, sides.x1.shape[1:], scaling, width)


def _names(network: AbstractLayer, which) -> tuple[str, ...]:
    if isinstance(which, str):
        return (which,)
    return KernelEstimates._fields if isinstance(network, MonteCarlo) else BOTH


def _checked_out(out, which, size: tuple[int, int], kind: type) -> list[np.ndarray]:
    found = [out] if isinstance(which, str) else list(out)
    wanted = 1 if isinstance(which, str) else len(which)
    if len(found) != wanted or any(x.shape != size or x.dtype != kind for x in found):
        told = ", ".join(f"{x.dtype} {x.shape}" for x in found)
        raise ValueError(
            f"out holds {told}: give {wanted} of {np.dtype(kind)} {size}, one for each matrix."
        )
    return found


def _choose(
    network, own, sides: Sides, names: tuple[str, ...], precision: Precision
) -> tuple[AbstractPath, tuple[tuple[str, str], ...]]:
    """The fastest path that applies; those that do not, with their reasons."""
    if isinstance(network, MonteCarlo):
        return SampledPath(network, own, sides, names), ()
    refused = []
    for kind in FAST:
        try:
            return kind.of(network, own, sides, names, precision), tuple(refused)
        except NotApplicable as error:
            refused.append((kind.name, str(error)))
    return RulesPath(network, own, sides, names), tuple(refused)


def kernel_diagonal(
    network: AbstractLayer, x: Num[np.ndarray, "n *s d"], *, scaling: AbstractScaling | None = None
) -> KernelDiagonals:
    """The diagonals of `kernel_matrix(network, x)`, without the rest of the matrices.

    >>> kernel_diagonal(Dense() >> Relu() >> Readout(), np.eye(3)).ntk.shape
    (3,)

    Arguments and errors as for `kernel_matrix`.
    """
    x = checked(x, "x")
    check_rows(network, x)
    check_rules(network)
    _check_vector(network, x.shape[1:])
    if isinstance(network, MonteCarlo):
        tile = sampled_rows(network, x.shape[1:])
        diagonal = functools.partial(sampled_diagonal, network)
    else:
        tile = tile_rows(network, x.shape[1:]) ** 2
        diagonal = functools.partial(alone, network)
    with float64():
        own = tangents(network, x.shape[1:], NTK() if scaling is None else scaling)
        found = [
            [np.asarray(part)[: len(own_x)] for part in diagonal(own, padded(own_x))]
            for own_x in (x[i : i + tile] for i in range(0, len(x), tile))
        ]
        return KernelDiagonals(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _check_vector(network: AbstractLayer, shape: tuple[int, ...]) -> None:
    if network.signal(input_signal(shape)).shape:
        raise ValueError(
            f"{network!r} leaves a grid of positions: end it in Flatten() or GlobalAveragePool(), "
            "or ask for position_kernels."
        )


def layer_kernels(
    network: AbstractLayer, x: Num[np.ndarray, "n d"], scaling: AbstractScaling | None = None
) -> list[Float[np.ndarray, "n n"]]:
    """The covariance of the features after each layer of a chain, inputs excluded."""
    x = np.asarray(x, dtype=np.float64)
    check_rules(network)
    with float64():
        own = tangents(network, x.shape[1:], NTK() if scaling is None else scaling)
        if isinstance(network, MonteCarlo):
            found = sampled_layers(network, own, padded(x))
        else:
            found = each_layer(network, own, padded(x))
        return [np.asarray(kernel)[: len(x), : len(x)] for kernel in found]


def check_rules(network: AbstractLayer) -> None:
    """Raises ValueError, in a sentence that names the way out, for layers that have no rule."""
    if not isinstance(network, MonteCarlo) and (sentence := network.refusal()) is not None:
        raise ValueError(sentence)


def checked_sides(x1, x2) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows against rows, or against themselves; ValueError where they do not fit together."""
    x1 = checked(x1, "x1")
    x2 = None if x2 is None else checked(x2, "x2")
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        one, other = (f"{' x '.join(map(str, x.shape[1:]))} columns" for x in (x1, x2))
        raise ValueError(f"x1 has {one} and x2 has {other}: they must agree.")
    return x1, x2


def checked(x, name: str) -> np.ndarray:
    """Rows of real, finite numbers in float64; ValueError or TypeError in a sentence otherwise."""
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{name} holds {x.dtype} entries: give real numbers.")
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {x.shape}: give rows of features, (n, d).")
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {x.shape}: give at least one row and one column.")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has entries that are NaN or infinite: fill or drop them.")
    return x


def check_memory(rows: int, columns: int, matrices: int = 2, entry: int = 8) -> None:
    """Raises MemoryError for kernel matrices of this size that do not fit into free memory."""
    need = bytes_needed(rows, columns, matrices, entry)
    check_free(need, f"Kernel matrices of {rows} by {columns} rows", "use fewer rows")


def bytes_needed(rows: int, columns: int, matrices: int = 2, entry: int = 8) -> int:
    """The kernels, and as much again for a solve."""
    return 2 * matrices * entry * rows * columns
