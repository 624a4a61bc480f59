"""Every example in a docstring runs and prints what it says."""

import doctest
import functools
import importlib
import pkgutil
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widthwise
from widthwise import kernels, learner, network, scaling

NAMES = [
    info.name
    for info in pkgutil.walk_packages(widthwise.__path__, "widthwise.")
    if not info.name.endswith("__main__")
]


def names_in_examples() -> dict:
    """What examples may use without importing it."""
    found = {}
    for module in (network, scaling, learner, kernels):
        found |= {name: x for name, x in vars(module).items() if not name.startswith("__")}
    return found | {"np": np, "jax": jax, "jnp": jnp, "eqx": eqx, "ww": widthwise}


@functools.cache
def problem() -> dict:
    """`data` and `family`, as docstrings call them."""
    data = widthwise.data.load("iris")
    settings = {"learner": learner.GradientDescent(lr=0.5, steps=4), "widths": (8, 16, np.inf)}
    settings["scaling"] = scaling.NTK()
    net = network.Dense() >> network.Relu() >> network.Readout()
    family = widthwise.Family(net, seeds=2, **settings)
    return {"data": data, "family": family}


@functools.cache
def trained() -> dict:
    """`runs`, as docstrings call them."""
    return {"runs": problem()["family"].train(problem()["data"])}


def examples(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    globs = names_in_examples() | vars(module)
    return [test for test in doctest.DocTestFinder().find(module, globs=globs) if test.examples]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples(name):
        text = " ".join(example.source for example in test.examples)
        words = set(re.findall(r"\w+", text))
        needed = problem() if words & {"data", "family"} else {}
        needed = needed | trained() if "runs" in words else needed
        for key, value in needed.items():
            test.globs.setdefault(key, value)
        said = []
        runner.run(test, out=said.append)
        assert runner.failures == 0, "".join(said)
