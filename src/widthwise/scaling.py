"""How weights and steps depend on width: abc(d)-parametrizations and what they become at infinity.

A weight of role `r` enters the network as `multiplier * w`, starts as `w ~ N(0, std^2)` and is
stepped by `rate` times the learner's step size. Each of the three is a constant times a power of
the width n: n^-a, n^-b, n^-c. An entrywise optimiser (Adam) also multiplies its gradient by n^d.
"""

import abc
import enum
import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

from widthwise import settings

Number = float | Float[Array, ""]


class Role(enum.Enum):
    """Which of a weight's fan-in and fan-out grow with the width."""

    INPUT = "input"  # fan-out grows
    HIDDEN = "hidden"  # both grow
    OUTPUT = "output"  # fan-in grows
    BIAS = "bias"  # the bias of a layer that grows: an input weight of fan-in one
    FIXED = "fixed"  # neither grows: the bias of a readout


class Exponents(NamedTuple):
    """a: multiplier n^-a; b: initial std n^-b; c: step size n^-c; d: gradient scale n^d (Adam)."""

    a: float
    b: float
    c: float
    d: float = 0.0


class Power(NamedTuple):
    """coefficient * n^exponent, so that a limit in n is taken exactly.

    >>> Power(3.0, -1.0).at(6), (Power(3.0, -1.0) * Power(2.0, 1.0)).at(math.inf)
    (0.5, 6.0)
    """

    coefficient: Number
    exponent: float = 0.0

    def __mul__(self, other: "Power") -> "Power":  # type: ignore[override]
        return Power(self.coefficient * other.coefficient, self.exponent + other.exponent)

    def at(self, width: float) -> Number:
        """The value at this width; at `inf` the limit: 0, the coefficient, or inf."""
        if isinstance(self.coefficient, int | float) and self.coefficient == 0:
            return 0.0
        if math.isfinite(width):
            return self.coefficient * width**self.exponent
        if abs(self.exponent) < 1e-9:
            return self.coefficient
        return 0.0 * self.coefficient if self.exponent < 0 else math.inf


class Slot(NamedTuple):
    """One weight's share of the scaling, as powers of the width."""

    multiplier: Power
    std: Power
    rate: Power


class Classification(NamedTuple):
    """What a scaling becomes as the width grows. Printed as one sentence."""

    stable: bool
    blows_up: tuple[str, ...]
    trivial: bool
    regime: str  # "kernel", "feature learning" or "none"
    r: float
    layer_r: tuple[float, ...]
    moves: tuple[bool, ...]  # layer l = 1..L+1 is maximally updated

    def __str__(self) -> str:
        if not self.stable:
            return f"unstable: {', '.join(self.blows_up)} blows up with the width"
        if self.trivial:
            return "stable but trivial: the function stops moving as the width grows"
        moving = [str(layer + 1) for layer, moves in enumerate(self.moves) if moves]
        return (
            f"stable, {self.regime} regime (features move like n^-{self.r:g}); "
            f"maximally updated layers: {', '.join(moving) or 'none'}"
        )


class AbstractScaling(eqx.Module):
    """Gives every role its exponents; all else (initial std, multiplier, step) follows."""

    source: ClassVar[str]
    multiplies: ClassVar[bool] = True
    """True: sqrt(variance / fan_in) stands in front of a standard normal weight, as in the NTK
    literature. False: it is the weight's initial std, as in everyday practice."""

    @abc.abstractmethod
    def exponents(self, role: Role, entrywise: bool = False) -> Exponents:
        """The exponents of one role, under SGD or under an entrywise optimiser."""

    def __repr__(self) -> str:
        return settings.shown(self)

    def richness(self) -> float:
        """gamma0: the output is divided by it, steps grow with it; 1 unless a preset says so."""
        return 1.0

    def slot(
        self, role: Role, gain: Power, std: Power, *, is_bias: bool, entrywise: bool = False
    ) -> Slot:
        """Multiplier, initial std and step size of a weight whose product is gain * std at NTK.

        `gain` is its constant in front, `std` its initial std, both as the layer asks for them
        in the NTK parametrization (sqrt(variance / fan_in) and 1 for a weight matrix).
        """
        a, b, c, _ = self.exponents(role, entrywise)
        natural = 0.5 if role in (Role.HIDDEN, Role.OUTPUT) else 0.0
        if not (self.multiplies or is_bias):
            gain, std = Power(1.0, -natural), gain * std * Power(1.0, natural)
            multiplier, initial = Power(1.0, -a), std * Power(1.0, -b)
        else:
            multiplier, initial = gain * Power(1.0, natural - a), std * Power(1.0, -b)
        rate = Power(1.0, -c)
        gamma0 = self.richness()
        if role is Role.OUTPUT:
            multiplier = multiplier * Power(1.0 / gamma0)
        if role is not Role.FIXED:
            rate = rate * Power(gamma0 if entrywise else gamma0**2)
        return Slot(multiplier, initial, rate)

    def classify(self, depth: int, *, entrywise: bool = False) -> Classification:
        """Stable or not, trivial or not, kernel or feature learning, for `depth` hidden layers.

        >>> MuP().classify(depth=2).regime, NTK().classify(depth=2).r
        ('feature learning', 0.5)

        Args:
            depth: number of hidden layers L, at least 1.
            entrywise: the exponents and rules of Adam-like optimisers instead of SGD's.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}: a classification needs at least 1 hidden layer.")
        roles = (Role.INPUT, *(Role.HIDDEN,) * (depth - 1), Role.OUTPUT)
        layers = [self.exponents(role, entrywise) for role in roles]
        return (_classify_entrywise if entrywise else _classify_sgd)(layers)


def shift(exponents: Exponents, theta: float, *, entrywise: bool = False) -> Exponents:
    """The symmetry: the same network, at every width and step, in other coordinates.

    >>> shift(Exponents(0.0, 0.5, 0.0), 0.5)
    Exponents(a=0.5, b=0.0, c=-1.0, d=0.0)
    """
    a, b, c, d = exponents
    if entrywise:  # the gradient grows by n^-theta with the multiplier; n^d takes it back
        return Exponents(a + theta, b - theta, c - theta, d + theta)
    return Exponents(a + theta, b - theta, c - 2 * theta, d)


def _close(x: float, y: float) -> bool:
    return abs(x - y) < 1e-9


def _verdict(layers, layer_r, out_update, out_unstable, moves_out) -> Classification:
    """The conditions that SGD and entrywise optimisers share; `layer_r` has one r per layer."""
    r = min(layer_r)
    out_init = layers[-1].a + layers[-1].b
    faults = {
        "the first layer's preactivations at initialisation": layers[0].a + layers[0].b < -1e-9,
        "hidden preactivations at initialisation": any(
            x.a + x.b < 0.5 - 1e-9 for x in layers[1:-1]
        ),
        "the output at initialisation": out_init < 0.5 - 1e-9,
        "the features' update": r < -1e-9,
        "the output's update": out_unstable or out_init + min(r, 0.0) < 0.5 - 1e-9,
        "the features' update seen by the output": out_init + r < 1 - 1e-9,
    }
    vanishing = layers[0].a + layers[0].b > 1e-9 or any(
        x.a + x.b > 0.5 + 1e-9 for x in layers[1:-1]
    )
    blows_up = tuple(name for name, at_fault in faults.items() if at_fault)
    stable = not blows_up
    trivial = vanishing or not (_close(out_init + r, 1.0) or out_update)
    regime = "none"
    if stable and not trivial:
        regime = "feature learning" if _close(r, 0.0) else "kernel"
    moves = (*(_close(x, 0.0) for x in layer_r), moves_out)
    return Classification(stable, blows_up, trivial, regime, r, tuple(layer_r), moves)


def _classify_sgd(layers: list[Exponents]) -> Classification:
    # Yang & Hu 2021, Theorem 3.3 and Definition 3.2, with one step-size exponent a layer: the
    # symmetry brings each layer to c = 0 first, where the published one-c formulas apply.
    flat = [shift(x, x.c / 2) for x in layers]
    out = flat[-1]
    reach = min(out.a + out.b, 2 * out.a) - 1
    layer_r = [reach + 2 * x.a + (1 if i == 0 else 0) for i, x in enumerate(flat[:-1])]
    update = _close(2 * out.a, 1.0)
    return _verdict(layers, layer_r, update, 2 * out.a < 1 - 1e-9, update)


def _classify_entrywise(layers: list[Exponents]) -> Classification:
    # Yang & Littwin 2023, section 2: the update of each entry is of order n^-c.
    out = layers[-1]
    layer_r = [x.c + x.a - (0 if i == 0 else 1) for i, x in enumerate(layers[:-1])]
    update = _close(out.a + out.c, 1.0)
    unstable = out.a + out.c < 1 - 1e-9 or out.b > out.c + 1e-9
    return _verdict(layers, layer_r, update, unstable, update)


class Richness(AbstractScaling):
    """The line from muP (r = 0) to NTK (r = 1/2): features move like n^-r.

    >>> Richness(0.25).classify(depth=3).r
    0.25

    Args:
        r: feature exponent, 0 to 1/2.
        gamma0: how rich the network is at fixed r: the output is divided by it and the step size
            multiplied by its square, so the function's first step does not depend on it.
    """

    source: ClassVar[str] = "yang2021feature, section 3; bordelon2022, section 2"
    r: float = 0.5
    gamma0: float = 1.0

    def __check_init__(self):
        settings.number(self, "r")
        if not 0 <= self.r <= 0.5:
            raise ValueError(f"r is {self.r}: richness runs from 0 (muP) to 0.5 (NTK).")
        settings.number(self, "gamma0", above=0)

    def richness(self) -> float:
        return self.gamma0

    def exponents(self, role: Role, entrywise: bool = False) -> Exponents:
        r = self.r
        if entrywise:
            table = {
                Role.INPUT: Exponents(0, 0, r, 1 - r),
                Role.BIAS: Exponents(0, 0, r, 1 - r),
                Role.HIDDEN: Exponents(0.5, 0, r + 0.5, 1.5 - r),
                Role.OUTPUT: Exponents(1 - r, 0, r, 1 - r),
            }
        else:
            c = 2 * r - 1
            table = {
                Role.INPUT: Exponents(0, 0, c),
                Role.BIAS: Exponents(0, 0, c),
                Role.HIDDEN: Exponents(0.5, 0, c),
                Role.OUTPUT: Exponents(1 - r, 0, c),
            }
        return table.get(role, Exponents(0, 0, 0))


class NTK(AbstractScaling):
    """The lazy scaling: at infinite width features stay and the network is its tangent kernel."""

    source: ClassVar[str] = "jacot2018, section 3; yang2021feature, Table 1"

    def exponents(self, role: Role, entrywise: bool = False) -> Exponents:
        return Richness(0.5).exponents(role, entrywise)


class MuP(AbstractScaling):
    """The maximal update scaling: every layer learns features at every width.

    >>> print(MuP().classify(depth=2))
    stable, feature learning regime (features move like n^-0); maximally updated layers: 1, 2, 3

    Args:
        gamma0: richness. Small values come close to the NTK scaling, 1 is mean field.
    """

    source: ClassVar[str] = "yang2021feature, Table 1; yang2023adaptive, Definition 2.2.5"
    gamma0: float = 1.0

    def __check_init__(self):
        settings.number(self, "gamma0", above=0)

    def richness(self) -> float:
        return self.gamma0

    def exponents(self, role: Role, entrywise: bool = False) -> Exponents:
        if entrywise:
            table = {
                Role.INPUT: Exponents(0, 0, 0, 1),
                Role.BIAS: Exponents(0, 0, 0, 1),
                Role.HIDDEN: Exponents(0, 0.5, 1, 1),
                Role.OUTPUT: Exponents(1, 0, 0, 1),
            }
        else:
            table = {
                Role.INPUT: Exponents(-0.5, 0.5, 0),
                Role.BIAS: Exponents(-0.5, 0.5, 0),
                Role.HIDDEN: Exponents(0, 0.5, 0),
                Role.OUTPUT: Exponents(0.5, 0.5, 0),
            }
        return table.get(role, Exponents(0, 0, 0))


class MeanField(AbstractScaling):
    """muP in mean-field coordinates: weights of order one, output 1/n, step size times n."""

    source: ClassVar[str] = "mei2018, eq. (1); yang2021feature, Table 1"

    def exponents(self, role: Role, entrywise: bool = False) -> Exponents:
        return Richness(0.0).exponents(role, entrywise)


class Standard(AbstractScaling):
    """Everyday initialisation, N(0, variance / fan_in), at its largest stable step size: n^-1
    under SGD, n^-3/2 under Adam (at n^-1 the features move, and the output grows like n^1/2).

    >>> Standard().classify(depth=2).regime
    'kernel'
    """

    source: ClassVar[str] = "yang2021feature, Table 1"
    multiplies: ClassVar[bool] = False

    def exponents(self, role: Role, entrywise: bool = False) -> Exponents:
        b = 0.5 if role in (Role.HIDDEN, Role.OUTPUT) else 0.0
        return Exponents(0, b, 1.5 if entrywise else 1.0, 0)


def _tuple(values: Any) -> Any:
    return tuple(values)


class ABC(AbstractScaling):
    """Any abc- or abcd-parametrization, three numbers each: input, hidden, output.

    >>> print(ABC(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(0, 0, 0)).classify(depth=2))
    unstable: the features' update, the output's update, ... blows up with the width

    Args:
        a, b, c: multiplier n^-a, initial std n^-b, step size n^-c of input, hidden, output.
        d: gradient scale n^d, read by entrywise optimisers only.

    Biases of growing layers are input weights; the readout's bias is independent of width.
    """

    source: ClassVar[str] = "yang2021feature, Definition 3.1; yang2023adaptive, Definition 2.2.1"
    multiplies: ClassVar[bool] = False
    a: tuple[float, float, float] = eqx.field(converter=_tuple)
    b: tuple[float, float, float] = eqx.field(converter=_tuple)
    c: tuple[float, float, float] = eqx.field(converter=_tuple)
    d: tuple[float, float, float] = eqx.field(default=(0.0, 0.0, 0.0), converter=_tuple)

    def __check_init__(self):
        for name in "abcd":
            given = getattr(self, name)
            if len(given) != 3 or not all(settings.is_number(x) for x in given):
                raise ValueError(
                    f"{name} of ABC is {given}: give three exponents, (input, hidden, output)."
                )

    def exponents(self, role: Role, entrywise: bool = False) -> Exponents:
        if role is Role.FIXED:
            return Exponents(0, 0, 0)
        at = {Role.INPUT: 0, Role.BIAS: 0, Role.HIDDEN: 1, Role.OUTPUT: 2}[role]
        return Exponents(self.a[at], self.b[at], self.c[at], self.d[at])
