"""Infinite-width neural networks: one description, every width, infinity among them.

Names are looked up on first use, so that `import widthwise` loads neither JAX nor matplotlib.
Type checkers read the same names in `__init__.pyi`; a test holds the two together.
"""

import importlib
import sys
from math import inf as inf

__version__ = "0.1.0"

_MODULES = ("data", "finite", "kernels", "limits", "measure", "network", "reporting")
_HOMES = {
    "family": ("Family", "Member"),
    "inference": ("Inducing", "Sampling"),
    "kernels": ("MonteCarlo", "kernel_matrix"),
    "learner": ("Adam", "GradientDescent", "GradientFlow", "Posterior", "SignDescent"),
    "projection": ("Projection",),
    "reporting": ("report",),
    "run": ("Run",),
    "schedule": ("Constant", "Cosine", "Drop", "Linear"),
    "scaling": ("ABC", "NTK", "MeanField", "MuP", "Richness", "Standard"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def _module(name: str):
    return importlib.import_module(f"widthwise.{name}")


def _layers() -> dict[str, type]:
    """Every layer: the package is the registry."""
    return _module("lookup").layers()


def __getattr__(name: str):
    if name in _MODULES:
        return _module(name)
    if name in _HOME_OF:
        return getattr(_module(_HOME_OF[name]), name)
    hint = "dir(widthwise) lists its names."
    if name[:1].isupper():
        found = _layers()
        if name in found:
            return found[name]
        near = [known for known in (*found, *_HOME_OF) if known.lower() == name.lower()]
        hint = f"did you mean {near[0]}?" if near else hint
    raise AttributeError(
        f"widthwise has no {name!r}; {hint}",
        name=name,
        obj=sys.modules[__name__],
    )


def __dir__() -> list[str]:
    return sorted({"__version__", "inf", *_MODULES, *_HOME_OF, *_layers()})
