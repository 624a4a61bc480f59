"""Names in words, as the faces, the command line and TOML use them: the class name, any case."""

import difflib
import inspect
from collections.abc import Iterable
from types import ModuleType
from typing import Any


class UnknownName(ValueError):
    """A name that no module offers; the message says the nearest."""


def offered(module: ModuleType, base: type) -> dict[str, type]:
    """The concrete subclasses of `base` that a module holds, by name."""
    found = {name: x for name, x in vars(module).items() if inspect.isclass(x)}
    return {
        name: x
        for name, x in found.items()
        if issubclass(x, base)
        and not inspect.isabstract(x)
        and not name.startswith(("_", "Abstract"))
    }


def find(name: str, choices: dict[str, Any], kind: str) -> Any:
    """The choice of this name, in any case; UnknownName with the nearest ones otherwise."""
    by_lower = {key.lower(): value for key, value in choices.items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    raise UnknownName(f"There is no {kind} called {name!r}: {hint(name, choices)}")


def hint(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The end of a sentence that refuses a name: the nearest known ones, or all of them.

    >>> hint("rellu", ["Relu", "Dense"]), hint("x", ["Relu", "Dense"])
    ('did you mean Relu?', 'known are Relu, Dense.')
    """
    lowered = {key.lower(): key for key in known}
    near = [lowered[x] for x in difflib.get_close_matches(name.lower(), lowered, 3, cutoff)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(lowered.values())}."


def make(name: str, choices: dict[str, type], kind: str, settings: dict[str, Any]) -> Any:
    """The class of this name with these settings; a sentence for settings it cannot have."""
    chosen = find(name, choices, kind)
    known = inspect.signature(chosen).parameters
    for key in settings:
        if key not in known:
            found = hint(key, known) if known else "it has none."
            raise UnknownName(f"{chosen.__name__} has no setting {key!r}: {found}")
    missing = [key for key, x in known.items() if x.default is x.empty and key not in settings]
    if missing:
        example = ", ".join(f"{key}=..." for key in missing)
        raise ValueError(
            f"{chosen.__name__} needs {', '.join(missing)}: write {chosen.__name__}({example})."
        )
    try:
        return chosen(**settings)
    except TypeError as error:  # a value of another type; the settings' own checks say which
        said = str(error).rstrip(".")
        raise ValueError(f"{chosen.__name__} cannot be made: {said}.") from None


def layers() -> dict[str, type]:
    """The layers that words can name: not those that `>>` and `+` make."""
    from widthwise import network

    found = offered(network, network.AbstractLayer)
    return {name: x for name, x in found.items() if x not in (network.Chain, network.Sum)}


def scaling_named(name: str, **settings: Any) -> Any:
    """The scaling of this name: `scaling_named("mup")` is `MuP()`."""
    from widthwise import scaling

    return make(name, offered(scaling, scaling.AbstractScaling), "scaling", settings)


def learner_named(name: str, **settings: Any) -> Any:
    """The learner of this name; a schedule may be a name too."""
    from widthwise import learner

    if isinstance(settings.get("schedule"), str):
        settings["schedule"] = part_named(settings["schedule"])
    return make(name, offered(learner, learner.AbstractLearner), "learner", settings)


def part_named(name: str, **settings: Any) -> Any:
    """A setting with settings of its own: a schedule, a projection, how a posterior is found."""
    from widthwise import inference, projection, schedule

    others = (projection.Projection, inference.Inducing, inference.Sampling)
    choices = offered(schedule, schedule.AbstractSchedule) | {x.__name__: x for x in others}
    return make(name, choices, "schedule, projection or way to a posterior", settings)


def layer_named(name: str, **settings: Any) -> Any:
    """The layer of this name."""
    return make(name, layers(), "layer", settings)
