"""Everything that the modules offer by name, found by looking there."""

import inspect

from widthwise import data, learner, limits, measure, network, scaling
from widthwise.lookup import offered


def catalogue() -> dict[str, list[dict[str, str]]]:
    """Kind -> entries with name, first sentence of the docstring, and source.

    >>> [entry["name"] for entry in catalogue()["limits"]]
    ['NNGP', 'TangentKernel']
    """
    kinds = {
        "layers": (network, network.AbstractLayer),
        "scalings": (scaling, scaling.AbstractScaling),
        "learners": (learner, learner.AbstractLearner),
        "limits": (limits, limits.AbstractLimit),
        "instruments": (measure, measure.AbstractInstrument),
    }
    found = {
        kind: [_entry(name, cls) for name, cls in sorted(offered(*where).items())]
        for kind, where in kinds.items()
    }
    sets = [{"name": n, "what": what, "source": ""} for n, what in dict(data.names()).items()]
    return found | {"data sets": sets}


def _entry(name: str, cls: type) -> dict[str, str]:
    lines = (inspect.getdoc(cls) or "").split("\n\n")[0].split()
    return {"name": name, "what": " ".join(lines), "source": str(getattr(cls, "source", ""))}
