"""The algebra of layers: one description, read as a finite network and as its limit."""

import abc
import itertools
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from widthwise import settings
from widthwise.network.context import Context, run, values_of
from widthwise.network.joining import alike, applied, joined, run_each
from widthwise.network.moments import AbstractMoments, Tangent
from widthwise.network.signal import OUTPUTS, Pairs, Signal
from widthwise.network.weight import Weight


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

    def after(self, context: Context) -> Context | None:
        """What is known of the positions behind the layer; None where one vector leaves it."""
        return context

    def apply_known(self, weights: PyTree, x: Float[Array, "*s d"], context: Context) -> Any:
        """`apply` where some positions, which hold zeros, are not there, or are linked."""
        return self.apply(weights, x)

    def refusal(self) -> str | None:
        """Why the layer has no rule at infinite width, in a sentence that names the way out; None
        where it has one."""
        return next((said for layer in self.inside if (said := layer.refusal()) is not None), None)

    @property
    def inside(self) -> "tuple[AbstractLayer, ...]":
        """The layers that it is made of."""
        return ()

    @property
    def sequence(self) -> "tuple[AbstractLayer, ...]":
        """The layers that are passed one after another."""
        return (self,)

    def in_sequence(self, weights: PyTree) -> tuple[PyTree, ...]:
        """Its weights layer by layer, as in `sequence`."""
        return (weights,)

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
        if isinstance(layer, AbstractWhole):
            raise TypeError(
                f"{layer!r} is a whole network: compose its layers, then wrap them all."
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
            if incoming.size == OUTPUTS and not isinstance(layer, Identity):
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
            x = run(layer, own, x)
        return x

    def apply_known(self, weights, x, context):
        return values_of(applied(self, weights, x, context))

    def after(self, context: Context) -> Context | None:
        left: Context | None = context
        for layer in self.layers:
            left = None if left is None else layer.after(left)
        return left

    def kernel(self, weights, moments):
        for layer, own in zip(self.layers, weights, strict=True):
            moments = layer.kernel(own, moments)
        return moments

    def needs(self, after: Pairs) -> Pairs:
        for layer in reversed(self.layers):
            after = layer.needs(after)
        return after

    @property
    def inside(self) -> tuple[AbstractLayer, ...]:
        return self.layers

    @property
    def sequence(self) -> tuple[AbstractLayer, ...]:
        return self.layers

    def in_sequence(self, weights):
        return weights

    def fresh(self) -> bool:
        for layer in reversed(self.layers):
            if not _passes(layer):
                return layer.fresh()
        return False

    def __repr__(self) -> str:
        return " >> ".join(
            f"({layer!r})" if isinstance(layer, Sum) else repr(layer) for layer in self.layers
        )


class AbstractUnruled(AbstractLayer):
    """A layer without a rule at infinite width: finite networks draw and apply it."""

    instead: ClassVar[str]  # what has a rule

    def refusal(self) -> str | None:
        return no_closed_form(type(self).__name__, self.instead)

    def kernel(self, weights, moments):
        raise ValueError(self.refusal())


class AbstractWhole(AbstractLayer):
    """A whole network, whose kernels at infinite width come from elsewhere than its layers' rules;
    at finite widths it is that network."""

    network: eqx.AbstractVar[Chain]

    def signal(self, incoming: Signal) -> Signal:
        return self.network.signal(incoming)

    def weights(self, incoming: Signal):
        return self.network.weights(incoming)

    def apply(self, weights, x):
        return self.network.apply(weights, x)

    def kernel(self, weights, moments):
        raise ValueError(f"{self!r} has no rule of moments: ask kernel_matrix for its kernels.")

    def needs(self, after: Pairs) -> Pairs:
        return self.network.needs(after)

    def refusal(self) -> str | None:
        return None

    @property
    def inside(self) -> tuple[AbstractLayer, ...]:
        return (self.network,)

    @property
    def sequence(self) -> tuple[AbstractLayer, ...]:
        return self.network.layers

    def in_sequence(self, weights):
        return weights

    def fresh(self) -> bool:
        return self.network.fresh()


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


class AbstractBranches(AbstractLayer):
    """Branches that read one input, and what they make together."""

    branches: eqx.AbstractVar[tuple[AbstractLayer, ...]]

    @property
    def inside(self) -> tuple[AbstractLayer, ...]:
        return self.branches

    def weights(self, incoming: Signal):
        return tuple(branch.weights(incoming) for branch in self.branches)

    def apply_known(self, weights, x, context):
        return applied(self, weights, x, context)

    def after(self, context: Context) -> Context | None:
        return joined(self.branches, context)

    def needs(self, after: Pairs) -> Pairs:
        return max(branch.needs(after) for branch in self.branches)

    def fresh(self) -> bool:
        return all(branch.fresh() for branch in self.branches)


class Sum(AbstractBranches):
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

    def apply(self, weights, x):
        outs = run_each(self.branches, weights, x)
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

    def __repr__(self) -> str:
        return " + ".join(
            f"({branch!r})" if isinstance(branch, Chain) else repr(branch)
            for branch in self.branches
        )


def no_closed_form(name: str, instead: str) -> str:
    """The sentence that refuses a layer at infinite width.

    >>> no_closed_form("MaxPool", "AveragePool").split(": ")[1]
    'use AveragePool, or MonteCarlo(network, samples=...).'
    """
    return (
        f"{name} has no closed form at infinite width: use {instead}, or "
        "MonteCarlo(network, samples=...)."
    )


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
