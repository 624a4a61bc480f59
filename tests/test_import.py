"""The surface: names resolve, the stub agrees, and nothing heavy is imported before it is used."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import widthwise
from widthwise import network

HEAVY = ("jax", "equinox", "matplotlib", "sklearn", "pandas", "numba")
STUB = Path(widthwise.__file__).with_suffix(".pyi")
COMMANDS = ("", "compare", "fit", "predict", "words", "fewshot", "list")


def heavy_after(code: str) -> list[str]:
    """What of HEAVY a fresh process has imported after running this code."""
    code += f"\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def stub() -> tuple[dict[str, str], list[str]]:
    """({name: module it comes from}, modules imported with a star), as the stub says."""
    named, starred = {}, []
    for node in ast.parse(STUB.read_text()).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        home = node.module if node.level == 0 else f"widthwise.{node.module or ''}".rstrip(".")
        for alias in node.names:
            if alias.name == "*":
                starred.append(home)
            else:
                assert alias.asname == alias.name, f"write `{alias.name} as {alias.name}`"
                named[alias.name] = home
    return named, starred


def layers() -> set[str]:
    found = {n: x for n, x in vars(network).items() if inspect.isclass(x)}
    made_by_operators = {network.Chain, network.Sum}
    return {
        n
        for n, x in found.items()
        if issubclass(x, network.AbstractLayer)
        and not inspect.isabstract(x)
        and x not in made_by_operators
    }


def test_import_is_light():
    assert heavy_after("import widthwise") == []


def test_probing_a_missing_name_is_light():
    assert heavy_after("import widthwise\nassert not hasattr(widthwise, '__wrapped__')") == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light(command):
    words = [*command.split(), "--help"]
    assert heavy_after(f"from widthwise.cli import main\nmain({words!r})") == []


def test_stub_and_surface_have_the_same_names():
    named, starred = stub()
    assert starred == ["widthwise.network"]
    assert set(dir(widthwise)) == {*named, *layers(), "__version__"}


@pytest.mark.parametrize("name", sorted(stub()[0]))
def test_name_is_what_the_stub_says(name):
    home = importlib.import_module(stub()[0][name])
    if home is widthwise:
        assert getattr(widthwise, name) is importlib.import_module(f"widthwise.{name}")
    else:
        assert getattr(widthwise, name) is getattr(home, name)


@pytest.mark.parametrize("name", sorted(layers()))
def test_layer_is_on_the_surface(name):
    assert getattr(widthwise, name) is getattr(network, name)


@pytest.mark.parametrize("name", ["Rellu", "jax", "math", "AbstractSmooth", "no_such_name"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(AttributeError, match=name):
        getattr(widthwise, name)
