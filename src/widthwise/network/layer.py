"""The algebra of layers: one description, read as a finite network and as its limit."""

import abc
import itertools
import math
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from widthwise import settings
from widthwise.network.moments import AbstractMoments, Tangent
from widthwise.network.signal import OUTPUTS, Pairs, Signal, Size
from widthwise.scaling import Number, Power, Role


class Weight(eqx.Module):
    """One tensor that a layer owns, before any width or scaling is chosen.

    In the NTK parametrization it enters as gain * w with w ~ N(0, std^2); other scalings move
    powers of the width between the two. `fan_in` is None for a bias. A filter has one matrix for
    each of its taps, whose inputs all add to one sum; `copies` are of positions that each have
    weights of their own.
    """

    fan_in: Size | None
    fan_out: Size
    variance: Number
    gain: Number = 1.0  # biases only: a weight's gain follows from variance and fan-in
    lr_multiplier: Number = 1.0
    taps: tuple[int, ...] = ()
    copies: tuple[int, ...] = ()

    @property
    def inputs(self) -> Size:
        """What one output reads; a bias reads the constant 1."""
        return Size(fixed=1) if self.fan_in is None else self.fan_in.by(math.prod(self.taps))

    def shape(self, width: int) -> tuple[int, ...]:
        """Of the tensor at a width."""
        sizes = (self.fan_out,) if self.fan_in is None else (self.fan_in, self.fan_out)
        return (*self.copies, *self.taps, *(size.at(width) for size in sizes))

    @property
    def role(self) -> Role:
        if self.fan_in is None:
            return Role.BIAS if self.fan_out.grows else Role.FIXED
        if self.fan_in.grows:
            return Role.HIDDEN if self.fan_out.grows else Role.OUTPUT
        return Role.INPUT if self.fan_out.grows else Role.FIXED

    def natural(self) -> tuple[Power, Power]:
        """(gain, std) in the NTK parametrization, as powers of the width."""
        if self.fan_in is None:
            zero = isinstance(self.gain, (int, float)) and self.gain == 0
            std = 0.0 if zero else self.variance**0.5 / self.gain
            return Power(self.gain), Power(std)
        count = self.inputs.times if self.fan_in.grows else self.inputs.fixed
        exponent = -0.5 if self.fan_in.grows else 0.0
        return Power((self.variance / count) ** 0.5, exponent), Power(1.0)


class AbstractLayer(eqx.Module):
    """An immutable value; `>>` composes, `+` adds branches that read the same input."""

    reads_data: ClassVar[bool] = False  # whether it acts on the data itself, before all others

    @abc.abstractmethod
    def signal(self, incoming: Signal) -> Signal:
        """What leaves the layer; raises ValueError where no rule applies."""

    @abc.abstractmethod
    def weights(self, incoming: Signal) -> PyTree[Weight]:
        """The tensors that the layer owns, given what arrives."""

    @abc.abstractmethod
    def apply(self, weights: PyTree, x: Float[Array, " d"]) -> Float[Array, " k"]:
        """Runs one example; `weights` as in `weights()`, multipliers already applied."""

    @abc.abstractmethod
    def kernel(self, weights: PyTree[Tangent], moments: AbstractMoments) -> AbstractMoments:
        """Carries moments through the layer at infinite width."""

    @abc.abstractmethod
    def fresh(self) -> bool:
        """True if the output is fresh Gaussian weights times something: mean zero and
        uncorrelated with all that does not pass through those weights."""

    def needs(self, after: Pairs) -> Pairs:
        """Which pairs of positions the layer reads, given what the layers after it read."""
        return after

    def __repr__(self) -> str:
        return settings.shown(self)

    def __rshift__(self, after: "AbstractLayer") -> "AbstractLayer":
        return chain(self, after)

    def __add__(self, other: "AbstractLayer") -> "AbstractLayer":
        _check_layers(self, other)
        return Sum((*_branches(self), *_branches(other)))


def _check_layers(*layers) -> None:
    for layer in layers:
        if not isinstance(layer, AbstractLayer):
            raise TypeError(
                f"{layer!r} is no layer: compose layers such as Dense() >> Relu() >> Readout()."
            )


def _flat(layers) -> tuple[AbstractLayer, ...]:
    _check_layers(*layers)
    groups = [x.layers if isinstance(x, Chain) else (x,) for x in layers]
    return tuple(layer for group in groups for layer in group)


class Chain(AbstractLayer):
    """Layers one after another; made by `>>`, always flat."""

    layers: tuple[AbstractLayer, ...] = eqx.field(converter=_flat)

    def __check_init__(self):
        for before, layer in itertools.pairwise(self.layers):
            if layer.reads_data and not before.reads_data:
                raise ValueError(f"{layer!r} reads rows of data: put it first.")
        self.signal(Signal())  # refuses here, when composed, what no rule covers

    def signal(self, incoming: Signal) -> Signal:
        for layer in self.layers:
            if incoming.size == OUTPUTS:
                raise ValueError(
                    f"{layer!r} after Readout(): a network has one readout, its last layer."
                )
            incoming = layer.signal(incoming)
        return incoming

    def weights(self, incoming: Signal):
        found = []
        for layer in self.layers:
            found.append(layer.weights(incoming))
            incoming = layer.signal(incoming)
        return tuple(found)

    def apply(self, weights, x):
        for layer, own in zip(self.layers, weights, strict=True):
            x = layer.apply(own, x)
        return x

    def kernel(self, weights, moments):
        for layer, own in zip(self.layers, weights, strict=True):
            moments = layer.kernel(own, moments)
        return moments

    def needs(self, after: Pairs) -> Pairs:
        for layer in reversed(self.layers):
            after = layer.needs(after)
        return after

    def fresh(self) -> bool:
        for layer in reversed(self.layers):
            if not _passes(layer):
                return layer.fresh()
        return False

    def __repr__(self) -> str:
        return " >> ".join(
            f"({layer!r})" if isinstance(layer, Sum) else repr(layer) for layer in self.layers
        )


def branched(layers) -> tuple[AbstractLayer, ...]:
    """The branches that a layer is given; refuses what is none."""
    if not isinstance(layers, tuple | list) or not layers:
        raise TypeError(f"branches is {layers!r}: give a tuple of layers, one at least.")
    _check_layers(*layers)
    for layer in layers:
        first = layer.layers[0] if isinstance(layer, Chain) and layer.layers else layer
        if first.reads_data:
            raise ValueError(f"{first!r} stands in a branch: put it first, before the branches.")
    return tuple(layers)


class Identity(AbstractLayer):
    """Passes its input on: the skip of a residual branch.

    >>> Identity() + (Relu() >> Dense())
    Identity() + (Relu() >> Dense())
    """

    def signal(self, incoming: Signal) -> Signal:
        return incoming

    def weights(self, incoming: Signal):
        return None

    def apply(self, weights, x):
        return x

    def kernel(self, weights, moments):
        return moments

    def fresh(self) -> bool:
        return False


class Sum(AbstractLayer):
    """Branches that read one input, added; made by `+`.

    Branches must be uncorrelated given the input, so all but one end in fresh weights; several
    `Identity()` branches count as one that is multiplied.
    """

    branches: tuple[AbstractLayer, ...] = eqx.field(converter=branched)

    def __check_init__(self):
        stale = [x for x in self.branches if not (x.fresh() or isinstance(x, Identity))]
        if len(stale) > 1 or (stale and any(isinstance(x, Identity) for x in self.branches)):
            raise ValueError(
                f"The branches {', '.join(map(repr, stale))} of a sum share their input without "
                "weights of their own in between, so they are correlated: end all but one branch "
                "in Dense(), or write their sum as one Elementwise function."
            )
        self.signal(Signal())

    def signal(self, incoming: Signal) -> Signal:
        return alike(self, [branch.signal(incoming) for branch in self.branches])

    def weights(self, incoming: Signal):
        return tuple(branch.weights(incoming) for branch in self.branches)

    def apply(self, weights, x):
        outs = [b.apply(own, x) for b, own in zip(self.branches, weights, strict=True)]
        return sum(outs[1:], outs[0])

    def kernel(self, weights, moments):
        pairs = list(zip(self.branches, weights, strict=True))
        skips = sum(isinstance(branch, Identity) for branch, _ in pairs)
        outs = [moments.times(float(skips))] if skips else []
        outs += [b.kernel(own, moments) for b, own in pairs if not isinstance(b, Identity)]
        total = outs[0]
        for out in outs[1:]:
            total = total.add(out)
        return total

    def needs(self, after: Pairs) -> Pairs:
        return max(branch.needs(after) for branch in self.branches)

    def fresh(self) -> bool:
        return all(branch.fresh() for branch in self.branches)

    def __repr__(self) -> str:
        return " + ".join(
            f"({branch!r})" if isinstance(branch, Chain) else repr(branch)
            for branch in self.branches
        )


def alike(layer: AbstractLayer, leaving: list[Signal]) -> Signal:
    """What branches leave that are joined feature by feature; ValueError where they differ."""
    sizes = {str(x.size): x.size for x in leaving if x.size is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"The branches of {layer!r} leave {' and '.join(sorted(sizes))} features: branches "
            "that are joined need equal sizes."
        )
    known = [x.gaussian for x in leaving]
    gaussian = False if False in known else (None if None in known else True)
    return Signal(next(iter(sizes.values()), None), gaussian, same_shape(layer, leaving))


def same_shape(layer: AbstractLayer, leaving: list[Signal]) -> tuple[int | None, ...] | None:
    """The grid that all branches leave; ValueError where they leave different ones."""
    shapes = [x.shape for x in leaving if x.shape is not None]
    if not shapes:
        return None
    fits = len({len(shape) for shape in shapes}) == 1
    extents = [{e for e in axis if e is not None} for axis in zip(*shapes, strict=fits)]
    if not fits or any(len(axis) > 1 for axis in extents):
        raise ValueError(
            f"The branches of {layer!r} leave {' and '.join(str(x) for x in leaving)}: branches "
            "that are joined need equal grids of positions."
        )
    return tuple(next(iter(axis), None) for axis in extents)


def _passes(layer: AbstractLayer) -> bool:
    """True if a layer hands on what came before it, with nothing but fresh weights added."""
    if isinstance(layer, Chain):
        return all(map(_passes, layer.layers))
    if isinstance(layer, Sum):
        return not layer.fresh() and all(x.fresh() or _passes(x) for x in layer.branches)
    return isinstance(layer, Identity)


def _branches(layer: AbstractLayer) -> tuple[AbstractLayer, ...]:
    return layer.branches if isinstance(layer, Sum) else (layer,)


def chain(*layers: AbstractLayer) -> Chain:
    """Layers one after another, with nested chains laid flat."""
    return Chain(layers)
