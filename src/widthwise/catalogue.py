"""Everything that the modules offer by name, found by looking there."""

import dataclasses
import inspect
from typing import Any

from widthwise import data, learner, limits, measure, scaling
from widthwise.lookup import find, layers, offered


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Kind -> entries with name, what it is, its settings with their defaults, and its source.

    >>> [entry["name"] for entry in catalogue()["scalings"]][:3]
    ['ABC', 'MeanField', 'MuP']
    """
    kinds = {kind: [_entry(*found) for found in classes.items()] for kind, classes in _kinds()}
    sets = [
        {"name": name, "what": what, "settings": {}, "source": ""} for name, what in data.names()
    ]
    return kinds | {"data sets": sets}


def describe(name: str) -> str:
    """How one thing is written, and its documentation.

    >>> describe("identity").splitlines()[0]
    'Identity()'

    Raises UnknownName, with the nearest, for other names.
    """
    named = {key: found for _, classes in _kinds() for key, found in classes.items()}
    chosen = find(name, named | dict(data.names()), "layer, scaling, learner, limit or data set")
    if isinstance(chosen, str):
        return f"{name.lower()}\n\n{chosen}"
    settings = ", ".join(f"{key}={value}" for key, value in _settings(chosen).items())
    source = f"\n\nSource: {chosen.source}" if getattr(chosen, "source", "") else ""
    return f"{chosen.__name__}({settings})\n\n{inspect.getdoc(chosen) or ''}{source}"


def _kinds() -> list[tuple[str, dict[str, type]]]:
    kinds = {
        "layers": layers(),
        "scalings": offered(scaling, scaling.AbstractScaling),
        "learners": offered(learner, learner.AbstractLearner),
        "limits": offered(limits, limits.AbstractLimit),
        "instruments": offered(measure, measure.AbstractInstrument),
    }
    return [(kind, dict(sorted(found.items()))) for kind, found in kinds.items()]


def _entry(name: str, cls: type) -> dict[str, Any]:
    lines = (inspect.getdoc(cls) or "").split("\n\n")[0].split()
    return {
        "name": name,
        "what": " ".join(lines),
        "settings": _settings(cls),
        "source": str(getattr(cls, "source", "")),
    }


def _settings(cls: Any) -> dict[str, str]:
    """Every setting with its default as one writes it; '...' stands for one that must be given."""
    found = {}
    for field in dataclasses.fields(cls):
        default = field.default
        if default is dataclasses.MISSING:
            found[field.name] = "..."
        else:
            found[field.name] = getattr(default, "__name__", None) or repr(default)
    return found
