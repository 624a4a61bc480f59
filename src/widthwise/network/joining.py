"""Branches that read one input: what must hold of them, and what they make together."""

import functools
from typing import TYPE_CHECKING, Any

from jaxtyping import Array

from widthwise.network.context import Context, Known, run, values_of
from widthwise.network.signal import Signal

if TYPE_CHECKING:
    from widthwise.network.layer import AbstractLayer


def check_independent(layer: "AbstractLayer", branches: "tuple[AbstractLayer, ...]") -> None:
    """Refuses branches of which more than one does not end in fresh weights."""
    stale = [x for x in branches if not x.fresh()]
    if len(stale) > 1:
        raise ValueError(
            f"The branches {', '.join(map(repr, stale))} of a {type(layer).__name__} share their "
            "input without weights of their own in between, so they are not independent: end all "
            "but one branch in Dense(), or write what they make as one Elementwise function."
        )


def applied(layer: "AbstractLayer", weights, x, context: Context) -> Any:
    """One example, with its context, through a layer that hands it on to others."""
    return layer.apply(weights, Known(x, context))  # type: ignore[arg-type]


def run_each(branches, weights, x) -> list[Array]:
    """What each branch makes of one example."""
    return [values_of(run(b, own, x)) for b, own in zip(branches, weights, strict=True)]


def joined(branches, context: Context) -> Context | None:
    """What is known of the positions that branches leave together."""
    found = [branch.after(context) for branch in branches]
    if any(one is None for one in found):
        return None
    return functools.reduce(Context.joined, found)


def alike(layer: "AbstractLayer", leaving: list[Signal]) -> Signal:
    """What branches leave that are joined feature by feature; ValueError where they differ."""
    sizes = {str(x.size): x.size for x in leaving if x.size is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"The branches of {layer!r} leave {' and '.join(sorted(sizes))} features: branches "
            "that are joined need equal sizes."
        )
    known = [x.gaussian for x in leaving]
    gaussian = False if False in known else (None if None in known else True)
    size = next(iter(sizes.values()), None)
    return Signal(size, gaussian, same_shape(layer, leaving), leaving[0].linked)


def same_shape(layer: "AbstractLayer", leaving: list[Signal]) -> tuple[int | None, ...] | None:
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
