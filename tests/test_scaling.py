"""Parametrizations: the published tables, the symmetry, and the classification rule by rule."""

import itertools
import math
import pickle

import numpy as np
import pytest
from found import concrete

from widthwise import scaling
from widthwise.network import Dense, Readout, Relu
from widthwise.network.build import slot_of, specify, tangents
from widthwise.scaling import (
    ABC,
    NTK,
    AbstractScaling,
    Exponents,
    MeanField,
    MuP,
    Power,
    Richness,
    Role,
    Standard,
    shift,
)

DEPTHS = (1, 2, 3, 5)
ROLES = (Role.INPUT, Role.HIDDEN, Role.OUTPUT)
SCALINGS = [kind() for kind in concrete(scaling, AbstractScaling) if kind is not ABC]

SP_AT_ONE = ABC(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(0, 0, 0))
DIVIDED_LOGITS = ABC(a=(0, 0, 0.5), b=(0, 0.5, 0), c=(0, 0, 0))

# Yang & Hu 2021, Table 1, and two rows of their text: r, regime.
ROWS = [
    (Standard(), 0.5, "kernel"),
    (NTK(), 0.5, "kernel"),
    (MeanField(), 0.0, "feature learning"),
    (MuP(), 0.0, "feature learning"),
    (ABC(a=(-0.5, 0, 0.5), b=(0.5, 0.5, 0.5), c=(0, 0, 0)), 0.0, "feature learning"),
    (ABC(a=(0, 0.5, 0.5), b=(0, 0, 0), c=(0, 0, 0)), 0.5, "kernel"),
    (ABC(a=(0, 0.5, 1), b=(0, 0, 0), c=(-1, -1, -1)), 0.0, "feature learning"),
]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_published_rows(row, depth):
    given, r, regime = row
    found = given.classify(depth)
    assert (found.stable, found.trivial, found.regime) == (True, False, regime)
    if depth == 1 and given == Standard():
        r = 1.5  # no hidden weight: the first layer moves less than a hidden one would
    assert found.r == pytest.approx(r)


@pytest.mark.parametrize("entrywise", [False, True])
@pytest.mark.parametrize("depth", DEPTHS)
def test_mup_alone_updates_every_layer(depth, entrywise):
    for mup in (MuP(), MeanField(), Richness(0.0)):
        found = mup.classify(depth, entrywise=entrywise)
        assert found.moves == (True,) * (depth + 1)
        assert found.layer_r == pytest.approx((0.0,) * depth)
    assert not any(NTK().classify(depth, entrywise=entrywise).moves[:-1])


@pytest.mark.parametrize("depth", DEPTHS[1:])
def test_standard_at_constant_steps_is_unstable(depth):
    found = SP_AT_ONE.classify(depth)
    assert not found.stable and found.r == -1 and "the features' update" in found.blows_up
    assert str(found).startswith("unstable: ")


@pytest.mark.parametrize("depth", DEPTHS[1:])
def test_dividing_logits_by_root_n_freezes_the_first_layer(depth):
    given = ABC(a=(0, 0, 0.5), b=(0, 0.5, 0.5), c=(0, 0, 0))
    found = given.classify(depth)
    assert found.stable and found.regime == "feature learning"
    assert found.layer_r == (1.0, *(0.0,) * (depth - 1))
    assert found.moves == (False, *(True,) * (depth - 1), True)


def invariants(exponents: Exponents, entrywise: bool) -> tuple[float, float]:
    """What the symmetry leaves: size at the start, and size of a step's effect."""
    a, b, c, _ = exponents
    return a + b, c + (a if entrywise else 2 * a)


# Tensor Programs V: (a, b, c) of input, hidden, output in Tables 3, 8 and 9, for SGD and Adam.
TABLES = {
    "3": {
        False: [(0, 0, -1), (0, 0.5, 0), (0, 1, 1)],
        True: [(0, 0, 0), (0, 0.5, 1), (0, 1, 1)],
    },
    "8": {
        False: [(0, 0, -1), (0, 0.5, 0), (1, 0, -1)],
        True: [(0, 0, 0), (0, 0.5, 1), (1, 0, 0)],
    },
    "9": {
        False: [(-0.5, 0.5, 0), (0, 0.5, 0), (0.5, 0.5, 0)],
        True: [(-0.5, 0.5, 0.5), (0, 0.5, 1), (0.5, 0.5, 0.5)],
    },
}


@pytest.mark.parametrize("entrywise", [False, True])
@pytest.mark.parametrize("table", TABLES)
def test_tables_3_8_and_9_are_mup(table, entrywise):
    rows = [Exponents(*row) for row in TABLES[table][entrywise]]
    for role, row in zip(ROLES, rows, strict=True):
        ours = MuP().exponents(role, entrywise)
        assert invariants(row, entrywise) == invariants(ours, entrywise)
    as_abc = ABC(*zip(*TABLES[table][entrywise], strict=True))
    assert as_abc.classify(3, entrywise=entrywise) == MuP().classify(3, entrywise=entrywise)


@pytest.mark.parametrize("entrywise", [False, True])
def test_three_names_of_mup(entrywise):
    for role in (*ROLES, Role.BIAS):
        same = {
            invariants(s.exponents(role, entrywise), entrywise)
            for s in (MuP(), MeanField(), Richness(0.0))
        }
        assert len(same) == 1


@pytest.mark.parametrize(
    "given, rows",
    [
        (NTK(), [(0, 0, 0.5, 0.5), (0.5, 0, 1, 1), (0.5, 0, 0.5, 0.5)]),
        (MuP(), [(0, 0, 0, 1), (0, 0.5, 1, 1), (1, 0, 0, 1)]),
    ],
)
def test_rows_for_entrywise_optimisers(given, rows):
    assert [given.exponents(role, entrywise=True) for role in ROLES] == rows


@pytest.mark.parametrize("given", [NTK(), MuP(), MeanField(), Richness(0.2)], ids=repr)
def test_gradient_scale_is_faithful(given):
    """d = a + a_out + b_out (output: a_out): what an entrywise optimiser reads is of order one."""
    found = [given.exponents(role, entrywise=True) for role in ROLES]
    out = found[-1]
    wanted = [x.a + out.a + out.b for x in found[:-1]] + [out.a]
    np.testing.assert_allclose([x.d for x in found], wanted)


def test_standard_under_adam():
    """At 1 / n the features move (r = 0), but a_out + b_out + r = 1/2 < 1: outputs blow up."""
    at_one = ABC(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(1, 1, 1))
    for depth in DEPTHS[1:]:
        found = at_one.classify(depth, entrywise=True)
        assert found.r == 0 and not found.stable
        assert found.blows_up == ("the features' update seen by the output",)
        ours = Standard().classify(depth, entrywise=True)
        assert ours.stable and not ours.trivial and ours.regime == "kernel"


def written_out(layers, entrywise):
    """(stable, nontrivial, r): the conditions of the papers, one c for all layers under SGD."""
    first, hidden, out = layers[0], layers[1:-1], layers[-1]
    size = out.a + out.b
    if entrywise:
        rs = [first.c + first.a, *(x.c + x.a - 1 for x in hidden)]
        r, reach = min(rs), out.a + out.c
        grows = out.b > out.c or min(rs) < 0 or reach - 1 < 0
    else:
        c = first.c
        base = min(size, 2 * out.a + c) + c - 1
        r, reach = base + min(2 * first.a + 1, *(2 * x.a for x in hidden), math.inf), 2 * out.a + c
        grows = r < 0 or reach < 1
    starts = first.a + first.b == 0 and all(x.a + x.b == 0.5 for x in hidden) and size >= 0.5
    stable = starts and not grows and size + r >= 1
    return stable, stable and (size + r == 1 or reach == 1), r


@pytest.mark.parametrize("entrywise", [False, True])
def test_classification_against_the_written_conditions(entrywise):
    """Every exponent on a grid of quarters, hence exact in floating point."""
    rng = np.random.default_rng(3)
    seen = set()
    for trial in range(3000):
        a, b, c = (rng.integers(-4, 7, 3) / 4 for _ in range(3))
        if trial % 4:  # three of four start well
            b = np.array([0.0, 0.5, rng.integers(2, 8) / 4]) - a
        c = c if entrywise else np.full(3, c[0])
        given = ABC(*(tuple(float(x) for x in row) for row in (a, b, c)))
        depth = 1 + trial % 4
        layers = [
            given.exponents(role) for role in (ROLES[0], *(ROLES[1],) * (depth - 1), ROLES[2])
        ]
        stable, nontrivial, r = written_out(layers, entrywise)
        found = given.classify(depth, entrywise=entrywise)
        assert found.r == pytest.approx(r)
        assert (found.stable and not found.trivial) == nontrivial, (given, depth, found)
        assert found.stable or not stable
        regime = ("feature learning" if r == 0 else "kernel") if nontrivial else "none"
        assert found.regime == regime
        seen.add((stable, regime))
    assert len(seen) == 4, "the grid reaches every verdict"


@pytest.mark.parametrize("entrywise", [False, True])
@pytest.mark.parametrize("given", [*SCALINGS, SP_AT_ONE, DIVIDED_LOGITS], ids=repr)
def test_symmetry(given, entrywise):
    """Another theta for each layer: the same verdict, the same products."""
    rng = np.random.default_rng(1)
    for depth in DEPTHS:
        moved = [
            shift(given.exponents(role, entrywise), float(theta), entrywise=entrywise)
            for role, theta in zip(ROLES, rng.normal(size=3), strict=True)
        ]
        other = ABC(*zip(*moved, strict=True))
        one = given.classify(depth, entrywise=entrywise)
        two = other.classify(depth, entrywise=entrywise)
        assert one[:4] == two[:4] and one.moves == two.moves
        np.testing.assert_allclose([one.r, *one.layer_r], [two.r, *two.layer_r], atol=1e-12)


@pytest.mark.parametrize("entrywise", [False, True])
@pytest.mark.parametrize("r", np.linspace(0, 0.5, 6).tolist())
def test_richness(r, entrywise):
    for depth in DEPTHS:
        found = Richness(r).classify(depth, entrywise=entrywise)
        assert found.stable and not found.trivial
        assert found.r == pytest.approx(r, abs=1e-12)
        assert found.regime == ("feature learning" if r == 0 else "kernel")
    assert {Richness(0.5).exponents(role) for role in ROLES} == {
        NTK().exponents(role) for role in ROLES
    }


def weights():
    net = Dense(bias_variance=0.3) >> Relu() >> Dense(weight_variance=1.5) >> Readout()
    specs = specify(net, 3, 2)
    return [w for affine in specs if affine is not None for w in (affine.weight, affine.bias)]


@pytest.mark.parametrize("entrywise", [False, True])
@pytest.mark.parametrize("given", SCALINGS, ids=repr)
def test_slots_are_the_exponents(given, entrywise):
    """Products and steps of every tensor: multiplier n^-a, std n^-b, rate n^-c, as promised."""
    for weight in weights():
        a, b, c, _ = given.exponents(weight.role, entrywise)
        slot = slot_of(weight, given, entrywise)
        gain, std = weight.natural()
        start, natural = slot.multiplier * slot.std, gain * std
        assert start.coefficient == pytest.approx(natural.coefficient)
        fan_in = 0.5 if weight.role in (Role.HIDDEN, Role.OUTPUT) else 0.0
        assert start.exponent == pytest.approx(-a - b)
        assert slot.rate.exponent == pytest.approx(-c)
        if weight.fan_in is not None and given.multiplies:
            assert slot.multiplier.exponent == pytest.approx(-a)
            assert slot.std.exponent == pytest.approx(-b) and slot.std.coefficient == 1
        assert natural.exponent == -fan_in


@pytest.mark.parametrize("given", [NTK(), Standard(), Richness(0.5)], ids=repr)
def test_lazy_scalings_start_alike(given):
    net = Dense() >> Relu() >> Dense(bias_variance=0.2) >> Relu() >> Readout()
    found, wanted = (tangents(net, 3, s) for s in (given, NTK()))
    for one, two in zip(found, wanted, strict=True):
        if one is not None:
            assert one.weight.variance == pytest.approx(two.weight.variance)
            assert one.bias.variance == pytest.approx(two.bias.variance)


@pytest.mark.parametrize("entrywise", [False, True])
def test_gamma0_leaves_the_first_step_alone(entrywise):
    """Output divided by gamma0; output times rate (SGD: squared multiplier) unchanged."""
    for rich, plain in ((MuP(gamma0=3.0), MuP()), (Richness(0.3, gamma0=3.0), Richness(0.3))):
        for weight in weights():
            one, two = (slot_of(weight, s, entrywise) for s in (rich, plain))
            factor = 1 / 3 if weight.role is Role.OUTPUT else 1.0
            moving = weight.role is not Role.FIXED
            step = (3.0 if entrywise else 9.0) if moving else 1.0
            assert one.multiplier.coefficient == pytest.approx(factor * two.multiplier.coefficient)
            assert one.rate.coefficient == pytest.approx(step * two.rate.coefficient)
            assert one.std == two.std


def test_powers_at_infinity():
    assert Power(2.0, 0.0).at(math.inf) == 2.0
    assert Power(2.0, -0.5).at(math.inf) == 0.0
    assert Power(2.0, 0.5).at(math.inf) == math.inf
    assert (Power(2.0, 0.1) * Power(0.5, 0.2) * Power(3.0, -0.3)).at(math.inf) == pytest.approx(3)


@pytest.mark.parametrize("given", [*SCALINGS, SP_AT_ONE, MuP(gamma0=2.0)], ids=repr)
def test_is_a_value(given):
    again = pickle.loads(pickle.dumps(given))
    assert again == given and hash(again) == hash(given) and repr(again) == repr(given)
    assert eval(repr(given), dict(vars(scaling))) == given


def test_refused(unchecked):
    for make, words in {
        lambda: Richness(0.6): "runs from 0",
        lambda: Richness(float("nan")): "finite number",
        lambda: MuP(gamma0=0.0): "over 0",
        lambda: MuP(gamma0=-1.0): "over 0",
        lambda: ABC(a=(0, 0), b=(0, 0, 0), c=(0, 0, 0)): "three exponents",
        lambda: ABC(a=(0, 0, True), b=(0, 0, 0), c=(0, 0, 0)): "three exponents",
        lambda: ABC(a="abc", b=(0, 0, 0), c=(0, 0, 0)): "three exponents",
        lambda: NTK().classify(0): "at least 1 hidden layer",
    }.items():
        with pytest.raises(ValueError, match=words):
            make()
    for wrong in (True, "1", None):
        with pytest.raises(TypeError, match="no number"):
            MuP(gamma0=wrong)  # type: ignore[arg-type]
    assert ABC(a=[0, 0, 0], b=[0, 0, 0], c=[0, 0, 0]) == ABC((0, 0, 0), (0, 0, 0), (0, 0, 0))


def test_every_scaling_has_exponents_for_every_role():
    for given, role, entrywise in itertools.product(SCALINGS, Role, (False, True)):
        assert len(given.exponents(role, entrywise)) == 4
