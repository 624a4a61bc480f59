"""Projection of gradients: what makes the rich limit of deep networks computable."""

from typing import Any, Literal

import equinox as eqx

from widthwise import settings
from widthwise.memory import bytes_of

Storage = Literal["float64", "float32", "bfloat16"]


class Projection(eqx.Module):
    """Gradients of hidden layers are projected onto `rank` random directions of their outputs.

    >>> Projection(200, rows=5000)
    Projection(rank=200, rows=5000)

    It holds at every width: at width inf it makes the pi-limit, whose layers are sums over the
    samples seen, one row each. `rows`, `memory` and `tolerance` bound what the limit remembers;
    without them it is exact and grows.

    Args:
        rank: directions a layer; the projection changes nothing at widths up to it.
        rows: rows a layer keeps: whenever there are three times as many, the layer's operator is
            replaced by the nearest one on `rows` of them, and the error is measured and told.
        memory: as `rows`, chosen so that the state fits ("2GB").
        tolerance: relative error of the operator a compression may make; more rows are kept
            where it would make more.
        storage: type in which rows are kept. Sums are float64 for "float64", else float32.
    """

    rank: int = 400
    rows: int | None = None
    memory: str | None = None
    tolerance: float | None = None
    storage: Storage = "float32"

    def __check_init__(self):
        settings.whole(self, "rank")
        if self.rows is not None:
            settings.whole(self, "rows", low=2)
        if self.memory is not None:
            bytes_of(self.memory)
            if self.rows is not None:
                raise ValueError("Give rows or memory, which is rows in bytes, and not both.")
        if self.tolerance is not None:
            settings.number(self, "tolerance", above=0)
            if self.tolerance >= 1:
                raise ValueError(f"tolerance is {self.tolerance}: a share of the operator, 0 to 1.")
        if self.storage not in ("float64", "float32", "bfloat16"):
            raise ValueError(
                f"storage is {self.storage!r}: choose 'float64', 'float32' or 'bfloat16'."
            )

    def __repr__(self) -> str:
        return settings.shown(self)


def projection_of(given: Any) -> Any:
    """A rank stands for a projection of that rank; all else passes, to be checked by its owner."""
    return Projection(given) if type(given) is int else given
