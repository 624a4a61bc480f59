"""Names in words, as the faces, the command line and TOML use them: the class name, any case."""

import difflib
import inspect
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
        if issubclass(x, base) and not inspect.isabstract(x) and not name.startswith(("_", "Abstract"))
    }


def find(name: str, choices: dict[str, Any], kind: str) -> Any:
    """The choice of this name, in any case; UnknownName with the nearest ones otherwise."""
    by_lower = {key.lower(): value for key, value in choices.items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    lowered = {key.lower(): key for key in choices}
    near = [lowered[x] for x in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(choices)}."
    raise UnknownName(f"There is no {kind} called {name!r}: {hint}")


def _made(name: str, choices: dict[str, type], kind: str, settings: dict[str, Any]) -> Any:
    chosen = find(name, choices, kind)
    known = list(inspect.signature(chosen).parameters)
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}."
            raise UnknownName(f"{chosen.__name__} has no setting {key!r}: {hint}")
    try:
        return chosen(**settings)
    except TypeError as error:
        raise ValueError(f"{chosen.__name__} cannot be made: {error}.") from None


def scaling_named(name: str, **settings: Any) -> Any:
    """The scaling of this name: `scaling_named("mup")` is `MuP()`."""
    from widthwise import scaling

    return _made(name, offered(scaling, scaling.AbstractScaling), "scaling", settings)


def learner_named(name: str, **settings: Any) -> Any:
    """The learner of this name."""
    from widthwise import learner

    return _made(name, offered(learner, learner.AbstractLearner), "learner", settings)


def layer_named(name: str, **settings: Any) -> Any:
    """The layer of this name."""
    from widthwise import network

    layers = offered(network, network.AbstractLayer)
    kinds = {k: v for k, v in layers.items() if k not in ("Chain", "Sum")}
    return _made(name, kinds, "layer", settings)
