"""The tables of docs/layers.md are what the modules say."""

import re
from pathlib import Path

import layers

import widthwise
from widthwise import kernels, limits, network, scaling
from widthwise import sklearn as estimators

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_modules_say(unchecked):
    written = (DOCS / "layers.md").read_text(encoding="utf-8")
    made = layers.rewritten(written)
    assert made == written, "run `python docs/layers.py`, and commit the page"


def test_the_names_beside_neural_tangents_exist():
    """Names of classes and functions in the right column; TODO marks what is being built."""
    offered = set()
    for module in (widthwise, network, kernels, limits, scaling, estimators, widthwise.finite):
        offered |= set(dir(module))
    written = (DOCS / "layers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \| (.*) \|$", written.partition("## Beside")[2], re.MULTILINE)
    assert len(rows) > 40
    for _, ours in rows:
        names = re.findall(r"`([A-Z]\w+|\w+_\w+)\b[^`]*`", "" if "TODO" in ours else ours)
        unknown = set(names) - offered - settings()
        assert not unknown, f"{unknown} in {ours!r}"


def settings() -> set[str]:
    """Of all layers."""
    kinds = [x for x in vars(network).values() if isinstance(x, type)]
    return {name for kind in kinds for name in getattr(kind, "__annotations__", {})}
