"""The path of images: convolutions, functions with a kink, and poolings, slice by slice.

Of two images, the pairs of positions (p, p + d) that lie one displacement d apart go through
filters and functions on their own, so that one slice stays in cache from one pooling to the next:
stages.py has the plan of the network, slices.py the arithmetic. Here is what each image brings.
"""

import functools
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from widthwise.kernels.path import ACCURACY, STORED, AbstractPath, NotApplicable, Precision, Sides
from widthwise.kernels.rules import RulesPath, mirrored
from widthwise.kernels.stages import KINK, Grids, Plan, Stage, behind, grid_of, planned
from widthwise.network.begin import read
from widthwise.network.layer import AbstractLayer
from widthwise.solve.precision import float64

LANES = 16  # pairs of images side by side
TILE = 128  # images of a tile, where an entry is quickly done
LEAST = 2**28  # positions times operations from which on a check by the rules is worth it
# Of the series, by what is stored: 1e-8 and 1e-12 are left out. From 15 on LLVM leaves loops over
# powers as they are.
DEGREE = {np.float32: 7, np.float64: 12}
ROUNDED = 16  # last places by which a sum may be rounded
POSITIONS = {"float32": 128, "fast": 512}  # from which on their errors cancel


class Laned(NamedTuple):
    """What `through` reads of one side."""

    x: Float[np.ndarray, "h c wl"]
    length: Float[np.ndarray, " l"]
    grids: list[Grids]
    pooled: list[Float[np.ndarray, "h w l"]]


class Side:
    """What the images of one side bring to each stage, with the images first, where lanes will be,
    and divided by their lengths.

    Attributes:
        length: of each image, by which it is divided.
        x: the images, (n, H, channels, W), divided by the root of the channels too.
        grids: of each stage, (n, operations, h, w) each.
        pooled: sums of D of each image with itself over pairs in a window, (n, h, w), of each stage
            but the last.
        total: sums over positions of the variances at the end, in float64.
    """

    def __init__(
        self, x: Float[np.ndarray, "n h w c"], length: np.ndarray, kind: type, around: bool
    ):
        self.length = length
        x = x.transpose(0, 1, 3, 2) / math.sqrt(x.shape[3])
        self.x = np.ascontiguousarray(np.tile(x, (2, 1, 2)) if around else x, kind)
        self.grids: list[Grids] = []
        self.pooled: list[np.ndarray] = []
        self.total = np.zeros(len(x))

    def laned(self, group: Int[np.ndarray, " lanes"]) -> Laned:
        """Some images, one a lane; where there are fewer than lanes, some stand twice."""
        lanes = np.resize(group, LANES)

        def one_each(part):
            return np.ascontiguousarray(np.moveaxis(part[lanes], 0, -1))

        return self._laned(one_each, lanes)

    def repeated(self, row: int) -> Laned:
        """An image in all lanes."""
        return self._laned(lambda part: np.repeat(part[row, ..., None], LANES, -1), [row] * LANES)

    def _laned(self, laned: Callable[[np.ndarray], np.ndarray], lanes) -> Laned:
        def along_rows(part):
            found = laned(part)
            return found.reshape(*found.shape[:-2], -1)

        return Laned(
            along_rows(self.x),
            self.length[lanes],
            [Grids(*map(along_rows, grids)) for grids in self.grids],
            [laned(part) for part in self.pooled],
        )


class ImagesPath(AbstractPath):
    """Slices of pairs of positions, of sixteen pairs of images at a time."""

    name: ClassVar[str] = "images"
    why = "filters, functions with a kink, and poolings"

    def __init__(self, plan: Plan, network, sides: Sides, names, stored: type, kind: type):
        self.names, self.plan, self.stored, self.kind = names, plan, stored, kind
        around = [size for s in plan.stages for op in s.operations for size in op.sizes[2:]]
        self.edge = max(around, default=0)
        filters = (op for stage in plan.stages for op in stage.operations if op.kind != KINK)
        self.biased = any(op.numbers[3] > 0 or op.numbers[7] > 0 for op in filters)
        self.packed = [stage.packed(kind) for stage in plan.stages]
        r, q = (tuple(map(self.kind, part)) for part in _series(DEGREE[stored]))
        self.series = r, q, self.kind(ROUNDED * np.finfo(self.kind).eps)
        self.rows = TILE if plan.stages[0].reach == (0, 0) else TILE // 4
        self.symmetric = sides.x2 is None
        self.one = self._side(_grids_of(network, sides.x1))
        self.two = self.one if sides.x2 is None else self._side(_grids_of(network, sides.x2))

    def tile(self, a: slice, b: slice):
        rows = range(len(self.one.x))[a]
        columns = np.arange(len(self.two.x))[b]
        same = self.symmetric and a == b
        nngp, ntk = np.zeros((2, len(rows), len(columns)))
        groups = [columns[start : start + LANES] for start in range(0, len(columns), LANES)]
        others = [self.two.laned(group) for group in groups]
        for at, row in enumerate(rows):
            one = self.one.repeated(row)
            for group, two in zip(groups, others, strict=True):
                if same and row > group[-1]:
                    continue
                into = slice(group[0] - columns[0], group[-1] + 1 - columns[0])
                nngp[at, into], ntk[at, into] = self._entries(one, two, row, group)
        found = {"nngp": nngp, "ntk": ntk}
        if same:
            found = {name: mirrored(kernel) for name, kernel in found.items()}
        return [found[name].astype(self.stored) for name in self.names]

    def _entries(self, one: Laned, two: Laned, row, group) -> tuple[np.ndarray, np.ndarray]:
        """(nngp, ntk) of a row with a group of others, one a lane."""
        sums, _ = self._run(one, two, len(self.plan.stages))
        last = self.plan.stages[-1]
        partners = 1 if last.reach == (0, 0) else math.prod(last.end)  # of each position
        both = partners * (self.one.total[row] + self.two.total[group]) / 2
        size = last.scale * self.one.length[row] * self.two.length[group]
        nngp, ntk = size * (both - sums[0, : len(group)]), size * sums[1, : len(group)]
        return behind(self.plan.last, nngp, ntk)

    def _side(self, x: Float[np.ndarray, "n h w c"]) -> Side:
        length = _lengths(self.plan, x)
        inverse = 1 / length[:, None, None]
        x = inverse[..., None] * x
        side = Side(x, length, self.kind, self.plan.stages[0].around)
        variance = np.mean(x**2, axis=3)
        for number, stage in enumerate(self.plan.stages):
            grids, variance = _variances(stage, variance, inverse**2, self.edge)
            side.grids.append(Grids(*(part.astype(self.kind) for part in grids)))
            if stage.window == (0, 0):
                side.total = variance.sum(axis=(1, 2))
                break
            h, w = stage.pooled
            if stage.strided:  # one position a window, which is not apart from itself
                side.pooled.append(np.zeros((len(x), h, w), self.kind))
                variance = variance[:, :: stage.step[0], :: stage.step[1]]
                continue
            apart = np.empty((len(x), h, w), self.kind)
            for start in range(0, len(x), LANES):
                group = np.arange(start, min(start + LANES, len(x)))
                own = side.laned(group)
                after = self._run(own, own, number + 1)[1]
                apart[group] = np.einsum("hwhwl->lhw", after[0])[: len(group)]
            side.pooled.append(apart)
            both = math.prod(stage.window) * _windows(variance, stage)
            variance = stage.scale * (both - apart)
        return side

    def _run(self, one: Laned, two: Laned, stages: int):
        """Pairs of images through the first stages: sums (2, lanes), and what the last of them has
        pooled: sums of D and T over pairs of windows, (h, w, h, w, lanes)."""
        from widthwise.kernels.slices import through  # Numba takes a second to import

        images, sums = (one.x, two.x), np.zeros((2, LANES))
        pair = self._pair(one.length, two.length)
        before = (np.zeros((0, 0, 0, 0, LANES), self.kind),) * 2
        after, rounded = before, self.kind(0)
        for number, stage in enumerate(self.plan.stages[:stages]):
            h, w = stage.pooled
            after = tuple(np.zeros((h, w, h, w, LANES), self.kind) for _ in range(2))
            through(
                images, before, self.packed[number], one.grids[number], two.grids[number],
                pair, (stage.shape, stage.reach, stage.step, stage.around), stage.window, after,
                sums, self._work(stage), (*self.series, rounded),
            )  # fmt: skip
            rounded = rounded if stage.strided else self.series[2]
            images = (np.zeros((0, 1, 1), self.kind),) * 2
            if number + 1 < stages:
                before = self._apart(stage, after, one.pooled[number], two.pooled[number])
        return sums, after

    def _pair(self, one: np.ndarray, two: np.ndarray):
        """What biases add to pairs of images, for each column, if there are any."""
        if not self.biased:
            return (np.zeros(0, self.kind),) * 2
        both = 1 / (one * two), (1 / one - 1 / two) ** 2 / 2
        columns = max(stage.shape[1] + 2 * self.edge for stage in self.plan.stages)
        return tuple(np.tile(part, columns).astype(self.kind) for part in both)

    def _apart(self, stage: Stage, after, own1, own2):
        """D and T of pooled features, of sums over pairs of windows: variances drop out of D, and
        windows that see the same are at 0, to the last digit."""
        scale, half = self.kind(stage.scale), self.kind(0.5)
        apart = after[0] - half * (own1[:, :, None, None] + own2[None, None])
        return scale * apart, scale * after[1]

    def _work(self, stage: Stage):
        """Memory of a slice and of its sums along rows."""
        h, w = (extent + 2 * self.edge for extent in stage.shape)
        return (self.edge, *(np.zeros((h, w * LANES), self.kind) for _ in range(4)))

    @classmethod
    def of(
        cls, network: AbstractLayer, own, sides: Sides, names: tuple[str, ...], precision: Precision
    ) -> "ImagesPath":
        """Raises NotApplicable, with the reason."""
        plan = planned(network, own, grid_of(network, sides, 2, "neither images nor sequences"))
        work = sum(math.prod(s.shape) ** 2 * len(s.operations) for s in plan.stages)
        if sides.pairs * work < LEAST:
            raise NotApplicable("there is too little to do")
        kinds = [np.float32, np.float64] if _averaged(plan, precision) else [np.float64]
        # an image of each side by the rules, which are slow
        rng = np.random.default_rng(0)
        few = Sides(np.stack([rng.choice(x) for x in (sides.x1, sides.other)]), None)
        both, bound = slice(0, 2), ACCURACY[precision]
        wanted = RulesPath(network, own, few, names).tile(both, both)
        for kind in kinds:
            make = functools.partial(cls, plan, network, names=names, stored=STORED[precision],
                                     kind=kind)  # fmt: skip
            if all(
                np.all(np.abs(one - other) <= bound * _sizes(other))
                for one, other in zip(make(few).tile(both, both), wanted, strict=True)
            ):
                return make(sides)
        raise NotApplicable(f"some entries are further than {bound:g} from the rules")


def _averaged(plan: Plan, precision: Precision) -> bool:
    """Whether float32 is likely to do: an angle is the root of what a cosine lacks of 1, and only
    the errors of many roots cancel. On photographs, with their plain regions, 3e-7 needs the sum
    of all pairs of positions."""
    if precision == "float64":
        return False
    everywhere = len(plan.stages) == 1 and plan.stages[0].reach != (0, 0)
    enough = math.prod(plan.stages[0].shape) >= POSITIONS[precision]
    return enough and (everywhere or precision == "fast")


def _sizes(kernel: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Of entries: the geometric mean of their two diagonal ones."""
    own = np.sqrt(np.diagonal(kernel))
    return np.outer(own, own)


def _lengths(plan: Plan, x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
    """About the size of features at the end; 1 where all of them are 0, all along."""
    variance = np.mean(x**2, axis=(1, 2, 3))
    for stage in plan.stages:
        for kind, _, numbers, *_ in stage.operations:
            gain = numbers[0] + numbers[1] / 2 if kind == KINK else numbers[0]
            variance = (gain or 1.0) * variance + (0 if kind == KINK else numbers[7])
        seen = math.prod(stage.window) // math.prod(stage.step)
        variance = variance * (stage.scale * seen**2 or 1.0)
    return np.sqrt(np.where(variance > 0, variance, 1))


def _inverse(length: np.ndarray) -> np.ndarray:
    return np.divide(1, length, where=length > 0, out=np.zeros_like(length))


def _variances(stage: Stage, variance: np.ndarray, bias: np.ndarray, edge: int):
    """What images bring to a stage's operations, and their variances behind it. A bias's variance
    is multiplied by `bias`."""
    (n, h, w), count = variance.shape, len(stage.operations)
    front = np.zeros((n, count, h + 2 * edge, w + 2 * edge))
    mean, root, back = np.zeros((3, n, count, h, w))
    for op, (kind, sizes, numbers, (rows, columns), around) in enumerate(stage.operations):
        if kind == KINK:
            own = np.sqrt(np.maximum(variance, 0))
            root[:, op, :rows, :columns] = own
            back[:, op, :rows, :columns] = _inverse(own)
            variance = (numbers[0] + numbers[1] / 2) * variance
            continue
        taps_h, taps_w, *beyond = sizes
        front[:, op, edge : edge + rows, edge : edge + columns] = variance
        padding = "wrap" if around else "constant"
        wide = np.pad(variance, ((0, 0), beyond[:2], beyond[2:]), padding)
        seen = np.lib.stride_tricks.sliding_window_view(wide, (taps_h, taps_w), (1, 2))
        variance = seen.mean(axis=(3, 4))
        mean[:, op, : variance.shape[1], : variance.shape[2]] = variance
        variance = numbers[0] * variance + numbers[7] * bias
    found = Grids(front, mean, root, back)
    if stage.around:  # once more, for positions that go round
        found = Grids(*(np.tile(part, (2, 2)) for part in found))
    return found, variance


def _windows(variance: np.ndarray, stage: Stage) -> np.ndarray:
    """Sums over windows."""
    (h, w), (rows, columns) = stage.pooled, stage.window
    cut = variance[:, : h * rows, : w * columns]
    return cut.reshape(len(variance), h, rows, w, columns).sum(axis=(2, 4))


@functools.cache
def _series(degree: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """R and Q of slices.py, in powers of gap = 1 - cosine from 0 to 1: the angle over pi is
    gap^0.5 Q, and (sine - angle cosine) / pi is gap^1.5 R."""

    def angle(gap):
        return 2 * np.arcsin(np.sqrt(gap / 2))

    def of_dual(at):
        gap = (at + 1) / 2
        sine = np.sqrt(gap * (2 - gap))
        return (sine - angle(gap) * (1 - gap)) / gap**1.5 / math.pi

    def of_slope(at):
        gap = (at + 1) / 2
        return angle(gap) / np.sqrt(gap) / math.pi

    def powers(function):
        found = np.polynomial.chebyshev.Chebyshev.interpolate(function, degree)
        shift = np.polynomial.Polynomial([-1, 2])  # at, of gap
        return tuple(found.convert(kind=np.polynomial.Polynomial)(shift).coef.tolist())

    return powers(of_dual), powers(of_slope)


def _grids_of(network: AbstractLayer, x: np.ndarray) -> Float[np.ndarray, "n h w c"]:
    """Rows of data as the network reads them; sequences are images of one row."""
    with float64():
        found = np.asarray(read(network, jnp.asarray(x)), np.float64)
    return found[:, None] if found.ndim == 3 else found
