"""Words to values: networks, scalings and learners from the command line and from TOML files."""

import ast
import math
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from widthwise.lookup import UnknownName, layer_named, learner_named, scaling_named
from widthwise.network import AbstractLayer


class SpecError(ValueError):
    """A specification that cannot be read; one sentence."""


def read_network(text: str) -> AbstractLayer:
    """A network from an expression of layers, `>>` and `+`.

    >>> read_network("Dense >> relu >> Dense(times=2) >> Relu() >> Readout")
    Dense() >> Relu() >> Dense(times=2) >> Relu() >> Readout()
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise SpecError(
            f"The network {text!r} cannot be read: write for example 'Dense >> Relu >> Readout'."
        ) from None
    return _layer(tree, text)


def _layer(node: ast.expr, text: str) -> AbstractLayer:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift):
        return _layer(node.left, text) >> _layer(node.right, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _layer(node.left, text) + _layer(node.right, text)
    if isinstance(node, ast.Name):
        return layer_named(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        settings = {str(key.arg): _literal(key.value, text) for key in node.keywords}
        return layer_named(node.func.id, **settings)
    raise SpecError(
        f"The network {text!r} has a part that is no layer ({ast.unparse(node)}): write layers "
        "with named settings, composed with >> and +."
    )


def _literal(node: ast.expr, text: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise SpecError(f"In the network {text!r}, {ast.unparse(node)} is no number.") from None


def read_width(word: str | float) -> float:
    """A width from a word: a whole number, or inf.

    >>> read_width("inf"), read_width("64")
    (inf, 64)
    """
    text = str(word).strip().lower()
    if text in ("inf", "infinity", "∞"):
        return math.inf
    try:
        width = int(text)
    except ValueError:
        raise SpecError(f"The width {word!r} is neither a whole number nor inf.") from None
    if width < 1:
        raise SpecError(f"The width {word!r} is not positive: give whole numbers, or inf.")
    return width


def read_named(value: Any, kind: str) -> Any:
    """A scaling or learner from a name, "Name(key=value)" or {name = ..., key = ...}."""
    make = {"scaling": scaling_named, "learner": learner_named}[kind]
    if isinstance(value, dict):
        if "name" not in value:
            raise SpecError(f"The {kind} {value} has no name.")
        return make(value["name"], **{k: v for k, v in value.items() if k != "name"})
    try:
        tree = ast.parse(str(value).strip(), mode="eval").body
    except SyntaxError:
        raise SpecError(f"The {kind} {value!r} cannot be read: write for example MuP.") from None
    if isinstance(tree, ast.Name):
        return make(tree.id)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
        settings = {str(key.arg): _literal(key.value, str(value)) for key in tree.keywords}
        return make(tree.func.id, **settings)
    raise SpecError(f"The {kind} {value!r} cannot be read: write for example Richness(r=0.25).")


def read_toml(path: str | Path, known: tuple[str, ...]) -> dict[str, Any]:
    """The settings in a TOML file; names outside `known` are refused with the nearest."""
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise SpecError(f"The spec file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"The spec file {path} is not TOML: {error}.") from None
    for name in found:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            raise UnknownName(f"The spec file {path} has no setting {name!r}: {hint}")
    return found


def split_words(text: Any) -> list[Any]:
    """Comma-separated words, commas inside brackets kept; a list stays as it is.

    >>> split_words("NTK, Richness(r=0.25, gamma0=2)")
    ['NTK', 'Richness(r=0.25, gamma0=2)']
    """
    if isinstance(text, list | tuple):
        return list(text)
    words, depth = [""], 0
    for letter in str(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            words.append("")
        else:
            words[-1] += letter
    return [word.strip() for word in words if word.strip()]
