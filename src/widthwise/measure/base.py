"""What an instrument returns: numbers, one figure, one sentence. All of it is plain JSON."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal

import equinox as eqx

from widthwise.learner import AbstractLearner

LONG = 30  # letters of a scaling or learner that are still a name


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve or set of points; `low` and `high` bound a band or error bars."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    style: Literal["line", "points", "dashed"] = "line"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One set of axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"


@dataclasses.dataclass(frozen=True)
class Table:
    """The numbers under a figure; cells are strings or numbers, None is an open cell."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What an instrument measured on runs."""

    instrument: str
    title: str
    sentence: str
    numbers: dict[str, Any]
    table: Table
    panels: tuple[Panel, ...] = ()
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.sentence

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class AbstractInstrument(eqx.Module):
    """Measures runs; knows no member by name and asks none whether it is finite."""

    source: ClassVar[str]
    learners: ClassVar[type[AbstractLearner]] = AbstractLearner  # of families it is for

    @abc.abstractmethod
    def __call__(self, runs: Any) -> Finding:
        """`runs` is what `Family.train` returns."""


def titled(what: str, runs: Any) -> str:
    """A finding's title, which names the family: its scaling and learner."""
    family = runs.family
    return f"{what} under {label(family.scaling)} with {label(family.learner)}"


def name_of(family: Any) -> str:
    """How a family is called in tables: its scaling and learner."""
    return f"{label(family.scaling)}, {label(family.learner)}"


def label(setting: Any) -> str:
    """A scaling or learner as a name: with its settings where they are few, else its class.

    >>> label(GradientDescent(lr=0.5, steps=1000, projection=64))
    'GradientDescent, projected onto 64'
    """
    text, name = repr(setting).removesuffix("()"), type(setting).__name__
    if len(text) <= LONG:
        return text
    projection = getattr(setting, "projection", None)  # it makes another family of networks
    return name if projection is None else f"{name}, projected onto {projection.rank}"
