"""Every fast path gives the numbers of the rules, on random networks and inputs."""

import secrets
from typing import Any, NamedTuple

import numpy as np
import pytest
from found import EVERYONE

from widthwise.kernels import chain, cosine, displacements, explain, images, kernel_matrix, matrix
from widthwise.network import (
    ABRelu,
    Abs,
    AveragePool,
    Conv,
    Dense,
    Elementwise,
    Erf,
    Flatten,
    GlobalAveragePool,
    GlobalSumPool,
    Identity,
    LayerNorm,
    LeakyRelu,
    Monomial,
    Readout,
    RectifiedMonomial,
    Relu,
    Sign,
    SumPool,
    Unflatten,
)
from widthwise.network.begin import input_signal
from widthwise.network.layer import AbstractLayer
from widthwise.network.pointwise import AbstractNonlinearity, AbstractQuadrature
from widthwise.scaling import NTK, AbstractScaling, Standard

# Parts of the geometric mean of both diagonal entries, by the precision that is asked for.
BOUNDS = {"float64": 1e-10, "float32": 1e-6}
PATHS = matrix.FAST  # which tests replace
EPS = np.finfo(float).eps
CHEAP = [f for f in EVERYONE if not isinstance(f, Elementwise)]
CLOSED = [f for f in CHEAP if isinstance(f, AbstractNonlinearity)]
CLOSED = [f for f in CLOSED if not isinstance(f, AbstractQuadrature)]


class Case(NamedTuple):
    """A network, rows that are all different, and which of them stand on either side."""

    network: AbstractLayer
    rows: np.ndarray
    sides: tuple[np.ndarray, np.ndarray | None]
    which: Any
    scaling: AbstractScaling
    width: float

    def kernels(self, *sides, precision) -> list[np.ndarray]:
        found = kernel_matrix(self.network, *sides, precision=precision, **self.settings)
        return [found] if isinstance(self.which, str) else list(found)

    def path(self, *sides, precision) -> str:
        return explain(self.network, *sides, precision=precision, **self.settings).path

    @property
    def settings(self) -> dict[str, Any]:
        return {"which": self.which, "scaling": self.scaling, "width": self.width}


def drawn(seed: int, make=None) -> Case:
    rng = np.random.default_rng(seed)
    kind = (homogeneous, of_one_length, chains, on_grids, on_grids)[rng.integers(5)]
    make = make or kind
    network, rows = make(rng)
    numbers = np.arange(len(rows))
    one = rng.permutation(np.concatenate([numbers, rng.choice(numbers, size=3)]))
    two = rng.choice(numbers, size=int(rng.integers(1, 2 * len(rows))))
    scaling, width = one_of(rng, ((NTK(), np.inf), (NTK(), np.inf), (Standard(), 64)))
    which = one_of(rng, ("nngp", "ntk", matrix.BOTH, matrix.BOTH))
    return Case(network, rows, (one, one_of(rng, (None, two))), which, scaling, width)


def check(case: Case, monkeypatch) -> set[str]:
    """Each fast path that applies, at each precision, is at the rules; gives those that were."""
    monkeypatch.setattr(cosine, "LEAST", 0)
    monkeypatch.setattr(chain, "LEAST", 0)
    monkeypatch.setattr(images, "LEAST", 0)
    monkeypatch.setattr(displacements, "LEAST", 0)
    monkeypatch.setattr(matrix, "FAST", ())
    exact = case.kernels(case.rows, precision="float64")
    one, two = case.sides
    sides = [case.rows[chosen] for chosen in case.sides if chosen is not None]
    applied = set()
    for kind in PATHS:
        monkeypatch.setattr(matrix, "FAST", (kind,))
        for precision, bound in BOUNDS.items():
            if case.path(*sides, precision=precision) == "rules":
                continue
            applied.add(f"{kind.name}, {precision}")
            found = case.kernels(*sides, precision=precision)
            for number, (kernel, whole) in enumerate(zip(found, exact, strict=True)):
                size = np.sqrt(np.diag(whole))
                size[size == 0] = size.max() or 1.0  # of rows of zeros, and without weights
                wanted = np.ix_(one, one if two is None else two)
                units = np.outer(size, size)[wanted]
                off = np.max(np.abs(kernel - whole[wanted]) / units)
                if off > bound:
                    # Where rows coincide, 1e-16 of a cosine are 1e-8 of its angle: the rules are
                    # not known to the bound there, as the inputs' last digits tell.
                    monkeypatch.setattr(matrix, "FAST", ())
                    own = 0.0
                    for moved in last_digits(sides):
                        again = case.kernels(*moved, precision="float64")[number]
                        own = max(own, np.max(np.abs(again - whole[wanted]) / units))
                    assert off / 10 <= own < 1e-6, (kind.name, precision, off, own, case.network)
                    monkeypatch.setattr(matrix, "FAST", (kind,))
    return applied


def last_digits(sides):
    """The same rows but for their last digits, three times."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        yield [x * (1 + EPS * rng.integers(-1, 2, x.shape)) for x in sides]


def one_of(rng, choices):
    return choices[rng.integers(len(choices))]


def affine(rng, biased: bool) -> dict[str, Any]:
    if not biased:
        return {"weight_variance": rng.uniform(0.5, 3), "bias_multiplier": 0.0}
    keys = "weight_variance", "bias_variance", "bias_multiplier"
    return dict(zip(keys, rng.uniform([0.5, 0, 0.1], [3, 0.5, 1]).tolist(), strict=True))


def kink(rng):
    a, b = rng.uniform(-1, 2, size=2).round(2).tolist()
    return one_of(rng, (Relu(), Relu(), Abs(), LeakyRelu(a), ABRelu(a, b)))


def homogeneous(rng):
    """Bias-free, of functions that are powers on either side of zero; rows of any length."""

    def dense():
        return Dense(**affine(rng, False))

    def step():
        plain = kink(rng) >> dense()
        return one_of(
            rng, (plain, plain, Identity() + plain, Identity() + plain + (kink(rng) >> dense()))
        )

    net = dense()
    kind = rng.integers(4)
    if kind == 0:  # layers that repeat
        block = step()
        for _ in range(rng.integers(5, 40)):
            net = net >> block
    elif kind == 1:  # a power
        net = net >> one_of(rng, (Monomial(2), Monomial(3), RectifiedMonomial(2))) >> dense()
    for _ in range(rng.integers(0, 4)):
        net = net >> step()
    last = one_of(rng, (kink(rng), kink(rng), Sign(), RectifiedMonomial(0)))
    net = net >> last >> Readout(**affine(rng, False))
    rows = some_vectors(rng)
    rows *= np.exp(rng.uniform(-5, 5, size=(len(rows), 1)))
    if rng.integers(2) and last not in (Sign(), RectifiedMonomial(0)):
        rows = np.concatenate([rows, np.zeros((1, rows.shape[1]))])
    return net, rows


def of_one_length(rng):
    def dense():
        return Dense(**affine(rng, True))

    def step():
        f = one_of(rng, CHEAP)
        return one_of(rng, (f, f, f, LayerNorm() >> f)) >> dense()

    net = dense()
    for _ in range(rng.integers(0, 4)):
        branch = step()
        net = net >> one_of(rng, (branch, branch, Identity() + branch))
    net = net >> one_of(rng, CHEAP) >> Readout(**affine(rng, True))
    rows = some_vectors(rng)
    length = np.sqrt(rows.shape[1]) * np.exp(rng.uniform(-1, 0.7))
    return net, length * rows / np.linalg.norm(rows, axis=1, keepdims=True)


def chains(rng):
    """Error functions and kinks with biases, any number of affine layers between; rows of any
    length."""

    def error_function():
        a, b, c = rng.uniform([-2, -2, -1], [2, 2, 1]).round(2).tolist()
        return one_of(rng, (Erf(), Erf(a, b, c)))

    net = Dense(**affine(rng, True))
    for _ in range(rng.integers(1, 6)):
        net = net >> one_of(rng, (error_function(), kink(rng)))
        for _ in range(rng.integers(1, 3)):
            net = net >> Dense(**affine(rng, True))
    rows = some_vectors(rng)
    rows *= np.exp(rng.uniform(-3, 3, size=(len(rows), 1)))
    rows = np.concatenate([rows, np.zeros((1, rows.shape[1]))])
    return one_of(rng, (net, net >> Readout(**affine(rng, True)))), rows


def some_vectors(rng):
    columns = int(np.exp(rng.uniform(np.log(2), np.log(1000))))
    return with_near_copies(rng, rng.normal(size=(int(rng.integers(4, 30)), columns)))


def with_near_copies(rng, rows):
    """Not nearer: there float64 does not know the angle to 1e-10."""
    near = rows[:3] + np.exp(rng.uniform(-8, 0)) * rng.normal(size=rows[:3].shape)
    return np.concatenate([rows, near, -rows[:1]])


def on_grids(rng):
    """Filters, kinks and poolings on images and sequences."""
    rank = int(rng.integers(1, 3))
    shape = tuple(rng.integers(3, 9 if rank == 2 else 20, size=rank).tolist())
    channels = int(rng.integers(1, 5))
    biased = bool(rng.integers(2))
    rows = rng.normal(size=(int(rng.integers(3, 8)), *shape, channels))
    rows = with_near_copies(rng, rows)
    rows *= np.exp(rng.uniform(-4, 4, size=(len(rows), *(1,) * (rank + 1))))
    rows[-2, : shape[0] // 2] = 0.7  # plain
    rows[-3, shape[0] // 2 :] = 0.0  # empty
    rows = np.concatenate([rows, np.zeros((1, *rows.shape[1:]))])
    reader = Identity()
    if rng.integers(4) == 0:
        reader = Unflatten(shape, channels=channels, channels_first=bool(rng.integers(2)))
        rows = rows.reshape(len(rows), -1)
    net, beyond = reader, one_of(rng, ("SAME", "SAME", "CIRCULAR"))
    for _ in range(rng.integers(1, 6)):
        net = net >> grid_step(rng, extents(net, rows), biased, beyond)
    net = net >> one_of(rng, (Flatten(), GlobalAveragePool(), GlobalSumPool()))
    behind = Identity(), Readout(**affine(rng, biased)), Dense(**affine(rng, biased)) >> Readout()
    return net >> one_of(rng, behind), rows


def extents(net, rows) -> Any:
    return net.signal(input_signal(rows.shape[1:])).shape


def grid_step(rng, shape, biased, beyond):
    window = tuple(int(rng.integers(1, min(s, 3) + 1)) for s in shape)
    if rng.integers(3) == 0 and max(shape) > 2:
        return one_of(rng, (AveragePool, SumPool))(window)
    taps = tuple(int(rng.integers(1, 5)) for _ in shape)
    inside = tuple(min(pair) for pair in zip(taps, shape, strict=True))
    weights = affine(rng, biased)
    steps = tuple(int(rng.integers(1, 3)) for _ in shape)
    linear = one_of(rng, (
        Conv(taps, padding=beyond, **weights), Conv(taps, steps, padding="SAME", **weights),
        Conv(inside, padding="VALID", **weights), Dense(**weights),
    ))  # fmt: skip
    return one_of(rng, (linear, linear >> kink(rng), linear >> kink(rng), linear >> kink(rng)))


def on_one_grid(rng):
    """Filters and functions of any kind on a grid of one to three axes, and one pooling."""
    rank = int(rng.integers(1, 4))
    shape = tuple(rng.integers(3, (20, 9, 5)[rank - 1], size=rank).tolist())
    biased, channels = bool(rng.integers(2)), int(rng.integers(1, 5))
    rows = with_near_copies(rng, rng.normal(size=(int(rng.integers(3, 12)), *shape, channels)))
    rows[-2, : shape[0] // 2] = 0.7  # plain
    net, beyond = Identity(), one_of(rng, ("SAME", "SAME", "CIRCULAR"))
    for _ in range(rng.integers(1, 5)):
        taps = tuple(int(rng.integers(1, min(5, s + 1))) for s in shape)
        inside = tuple(min(pair) for pair in zip(taps, extents(net, rows), strict=True))
        weights = affine(rng, biased)
        same = Conv(taps, padding=beyond, **weights)
        cut = Conv(inside, padding="VALID", **weights) if beyond == "SAME" else same
        linear = one_of(rng, (same, same, cut, Dense(**weights)))
        for _ in range(1 if linear == cut else one_of(rng, (1, 1, 3))):
            net = net >> linear >> one_of(rng, CLOSED)
    net = net >> one_of(rng, (Flatten(), GlobalAveragePool(), GlobalSumPool()))
    return net >> Readout(**affine(rng, biased)), rows


@pytest.mark.parametrize("seed", [3, 5])
def test_paths_agree_with_the_rules(seed, monkeypatch):
    check(drawn(seed), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300, 330))
def test_functions_of_any_kind_agree_with_the_rules(seed, monkeypatch):
    check(drawn(seed, on_one_grid), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("make", [homogeneous, of_one_length, chains, on_grids])
def test_most_fast_paths_apply(make, monkeypatch):
    wanted = {chains: "chain", on_grids: "images"}.get(make, "cosine")
    found = [check(drawn(seed, make), monkeypatch) for seed in range(100, 110)]
    for precision in BOUNDS:
        assert sum(f"{wanted}, {precision}" in applied for applied in found) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2, 4, *range(6, 200)])
def test_paths_agree_with_the_rules_on_many(seed, monkeypatch):
    check(drawn(seed), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_paths_agree_with_the_rules_on_fresh_networks(number, monkeypatch):
    seed = secrets.randbits(32)
    print("seed", seed)  # shown where it fails
    check(drawn(seed), monkeypatch)
