"""Words to values: networks, scalings and learners from the command line and from TOML files."""

import ast
import math
import tomllib
from pathlib import Path
from typing import Any

from widthwise.lookup import (
    UnknownName,
    hint,
    layer_named,
    learner_named,
    part_named,
    scaling_named,
)
from widthwise.network import AbstractLayer

# The settings of a comparison: the types TOML may give them, and how a sentence calls these.
SETTINGS = {
    "data": ((str,), "text"),
    "target": ((str, list), "text or a list of it"),
    "task": ((str,), "text"),
    "train": ((int,), "a whole number"),
    "test": ((int,), "a whole number"),
    "network": ((str,), "text"),
    "scalings": ((str, list, dict), "text or a list"),
    "projection": ((int,), "a whole number"),
    "learner": ((str, dict), "text or a table {name = ...}"),
    "widths": ((int, float, str, list), "a list"),
    "seeds": ((int,), "a whole number"),
    "tolerance": ((int, float), "a number"),
    "seed": ((int,), "a whole number"),
}
EXAMPLES = {"scaling": "MuP or Richness(r=0.25)", "learner": "Adam or GradientDescent(steps=100)"}


class SpecError(ValueError):
    """A specification that cannot be read; one sentence."""


def read_network(text: str) -> AbstractLayer:
    """A network from an expression of layers, `>>` and `+`, or the `network` of a TOML file.

    >>> read_network("Dense >> relu >> Dense(times=2) >> Relu() >> Readout")
    Dense() >> Relu() >> Dense(times=2) >> Relu() >> Readout()

    Raises ValueError, in one sentence, for anything else.
    """
    if text.strip().endswith(".toml"):
        found = read_toml(text.strip())
        if "network" not in found:
            raise SpecError(
                f'The spec file {text.strip()} has no network: write network = "Dense >> ...".'
            )
        text = found["network"]
    tree = _parsed(text)
    if tree is None:
        raise SpecError(
            f"The network {text!r} cannot be read: write for example 'Dense >> Relu >> Readout'."
        )
    return _layer(tree, text)


def _parsed(text: str) -> ast.expr | None:
    """The expression, which may have several lines, or None; it is never evaluated."""
    try:
        return ast.parse(f"({text.strip()}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # all of them mean: no Python
        return None


def _layer(node: ast.expr, text: str) -> AbstractLayer:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift):
        return _layer(node.left, text) >> _layer(node.right, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _layer(node.left, text) + _layer(node.right, text)
    found = _call(node)
    if found is None:
        raise SpecError(
            f"The network {text!r} has a part that is no layer, {ast.unparse(node)!r}: write "
            "layers with named settings, composed with >> and +."
        )
    return layer_named(found[0], **found[1])


def _call(node: ast.expr) -> tuple[str, dict[str, Any]] | None:
    """The name and settings of `Name` or `Name(key=value)`; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.args:
        return None
    return node.func.id, {str(key.arg): _setting(key) for key in node.keywords}


def _setting(key: ast.keyword) -> Any:
    """A value; of `branches`, networks."""
    if key.arg != "branches":
        return _value(key.value)
    entries = key.value.elts if isinstance(key.value, ast.Tuple | ast.List) else [key.value]
    return tuple(_layer(entry, ast.unparse(entry)) for entry in entries)


def _value(node: ast.expr) -> Any:
    """A number, a truth, None, text (quotes may be left out: shells eat them), or a tuple."""
    if isinstance(node, ast.Name):
        words = {"inf": math.inf, "true": True, "false": False, "none": None}
        return words.get(node.id.lower(), node.id)
    if isinstance(node, ast.Call):
        found = _call(node)
        if found is None:
            raise SpecError(
                f"The setting {ast.unparse(node)!r} cannot be read: name its settings, as in "
                "Projection(rank=400)."
            )
        return part_named(found[0], **found[1])
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_value(entry) for entry in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise SpecError(
            f"The setting {ast.unparse(node)!r} cannot be read: give a number, text, or numbers "
            "in brackets."
        ) from None


def read_width(word: str | float) -> float:
    """A width from a word: a whole number, or inf.

    >>> read_width("inf"), read_width("64")
    (inf, 64)

    Raises SpecError for anything else.
    """
    text = str(word).strip().lower()
    if text in ("inf", "infinity", "∞"):
        return math.inf
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer() or isinstance(word, bool):
        raise SpecError(f"The width {word!r} is neither a whole number nor inf.")
    if number < 1:
        raise SpecError(f"The width {word!r} is not positive: give whole numbers, or inf.")
    return int(number)


def read_named(value: Any, kind: str) -> Any:
    """A scaling or learner from a name, "Name(key=value)" or {name = ..., key = ...}.

    >>> read_named("richness(r=0.25)", "scaling")
    Richness(r=0.25)

    Args:
        value: text, or a table from TOML.
        kind: "scaling" or "learner".

    Raises ValueError, in one sentence, for anything else.
    """
    make = {"scaling": scaling_named, "learner": learner_named}[kind]
    if isinstance(value, dict):
        settings = dict(value)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise SpecError(f"The {kind} {value} has no name: write {{name = ..., ...}}.")
        return make(name, **{key: _part(entry) for key, entry in settings.items()})
    tree = _parsed(str(value))
    found = None if tree is None else _call(tree)
    if found is None:
        raise SpecError(f"The {kind} {value!r} cannot be read: write for example {EXAMPLES[kind]}.")
    return make(found[0], **found[1])


def _part(entry: Any) -> Any:
    """A table inside a table: a schedule or a projection."""
    if not isinstance(entry, dict):
        return entry
    settings = dict(entry)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise SpecError(f"The setting {entry} has no name: write {{name = ..., ...}}.")
    return part_named(name, **settings)


def read_comparison(asked: dict[str, Any]) -> Any:
    """A `Comparison` of settings in words; what is not asked for keeps its default.

    >>> read_comparison({"widths": "16, inf", "scalings": "mup"}).widths
    (16, inf)
    """
    from widthwise.compare import Comparison

    plain = ("seeds", "tolerance", "seed", "projection")
    settings = {name: asked[name] for name in plain if name in asked}
    if "network" in asked:
        settings["network"] = read_network(asked["network"])
    if "learner" in asked:
        settings["learner"] = read_named(asked["learner"], "learner")
    for name, read in (("scalings", lambda x: read_named(x, "scaling")), ("widths", read_width)):
        if name in asked:
            words = split_words(asked[name])
            if not words:
                raise SpecError(f"{name} is empty: give at least one, separated by commas.")
            settings[name] = tuple(dict.fromkeys(map(read, words)))  # one written twice counts once
    return Comparison(**settings)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, named as in SETTINGS.

    Raises SpecError for a file that cannot be read or a value of another type, UnknownName for
    other names.
    """
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise SpecError(f"The spec file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"The spec file {path} is not TOML: {error}.") from None
    for name, value in found.items():
        if name not in SETTINGS:
            raise UnknownName(
                f"The spec file {path} has no setting {name!r}: {hint(name, SETTINGS, 0.6)}"
            )
        types, wanted = SETTINGS[name]
        if not isinstance(value, types) or isinstance(value, bool):
            raise SpecError(f"The spec file {path} sets {name} to {value!r}: give {wanted}.")
    return found


def split_words(words: Any) -> list[Any]:
    """Comma-separated words, commas inside brackets kept; a list stays as it is.

    >>> split_words("NTK, Richness(r=0.25, gamma0=2)")
    ['NTK', 'Richness(r=0.25, gamma0=2)']
    """
    if isinstance(words, list | tuple):
        return list(words)
    if not isinstance(words, str):
        return [words]
    found, depth = [""], 0
    for letter in words:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [word.strip() for word in found if word.strip()]
