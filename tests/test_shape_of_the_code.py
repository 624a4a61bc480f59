"""Rules of CONTRIBUTING.md that a machine can hold."""

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
from pathlib import Path

import pytest

import widthwise

SOURCE = Path(widthwise.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
BIBLIOGRAPHY = [SOURCE / "reporting" / "refs.bib", SOURCE.parents[1] / "docs" / "refs.bib"]
files = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))

# Who stands on whom: a module imports from shelves below its own, or from its own folder.
SHELVES = [
    {"settings", "refusal", "place", "progress", "solve", "lookup", "store", "memory", "resources"},
    {"scaling", "learner", "entrywise", "schedule", "projection", "inference"},
    {"run", "problem", "data"},
    {"network"},
    {"kernels"},
    {"limits", "finite"},
    {"shelf", "stepsize", "conditioning"},
    {"family"},
    {"measure", "tasks", "sklearn", "model", "catalogue"},
    {"reporting"},
    {"compare", "spec"},
    {"cli", "__init__", "__main__"},
]
RANK = {name: rank for rank, shelf in enumerate(SHELVES) for name in shelf}

# Imports that point up, inside functions, each for a reason.
ALLOWED = {
    ("lookup", "network"): "names in words are looked up in the registries when they are read",
    ("lookup", "scaling"): "as above",
    ("lookup", "learner"): "as above",
    ("lookup", "schedule"): "as above",
    ("lookup", "projection"): "as above",
    ("lookup", "inference"): "as above",
    ("lookup", "limits"): "as above",
    ("lookup", "measure"): "as above",
    ("lookup", "data"): "as above",
}

# The one limit that is made of finite networks.
MADE_OF = {"limits/extrapolated.py": "finite"}


def home(path: Path) -> str:
    """The shelf's name: the folder, or the module at the top."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """What a file imports of the library, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            if node.module == "widthwise":
                found |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("widthwise."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "widthwise" and len(name) > 1}
    return found


def modules():
    return [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(widthwise.__path__, "widthwise.")
        if not info.name.endswith("__main__")
    ]


def classes() -> set[type]:
    found = itertools.chain.from_iterable(vars(module).values() for module in modules())
    return {x for x in found if inspect.isclass(x) and x.__module__.startswith("widthwise")}


@files
def test_files_and_lines_are_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines), default=0) <= 100


@files
def test_functions_fit_on_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            length = (node.end_lineno or 0) - node.lineno - documented.count("\n")
            assert length <= 60, f"{node.name} has {length} lines"


@files
def test_no_super_no_hasattr_no_switch(path):
    tree = ast.parse(path.read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    assert not called & {"super", "hasattr"}
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    if path != SOURCE / "solve" / "precision.py":
        assert "enable_x64" not in names, "float64 has one place: solve/precision.py"
    assert "jax.config" not in path.read_text(), "JAX's switches are the user's"


@files
def test_imports_point_one_way(path):
    own = home(path)
    assert own in RANK, f"{own} has no place in SHELVES"
    for other in sorted(imported(path)):
        if other == own or other not in RANK or (own, other) in ALLOWED:
            continue
        if MADE_OF.get(path.relative_to(SOURCE).as_posix()) == other:
            continue
        assert RANK[other] < RANK[own] or same_shelf(own, other), f"{own} imports {other}"


def same_shelf(own: str, other: str) -> bool:
    """Neighbours may meet, except limits and finite networks, which share nothing."""
    return RANK[own] == RANK[other] and {own, other} != {"limits", "finite"}


def test_no_cycles_between_shelves():
    edges = {home(path): set() for path in FILES}
    for path in FILES:
        edges[home(path)] |= {
            x for x in imported(path) if x in RANK and (home(path), x) not in ALLOWED
        }
    for _ in range(len(edges)):
        leaves = {name for name, targets in edges.items() if targets <= {name}}
        edges = {name: t - leaves for name, t in edges.items() if name not in leaves}
    assert not edges, f"these import each other: {sorted(edges)}"


def test_every_class_is_abstract_or_final():
    found = classes()
    for cls in found:
        if inspect.isabstract(cls):
            assert cls.__name__.lstrip("_").startswith("Abstract"), cls
    for cls in found:
        bases = [x for x in cls.__mro__[1:] if x in found]
        for base in bases:
            assert base.__name__.lstrip("_").startswith("Abstract"), f"{base} is final: {cls}"


def sources() -> dict[str, str]:
    found = {}
    for cls in classes():
        source = vars(cls).get("source")
        if isinstance(source, str) and source:
            found[f"{cls.__module__}.{cls.__name__}"] = source
    return found


def test_sources_are_in_the_bibliography():
    text = next(path for path in BIBLIOGRAPHY if path.exists()).read_text()
    keys = set(re.findall(r"@\w+\{([^,\s]+),", text))
    assert len(sources()) > 20
    for owner, source in sources().items():
        for part in source.split(";"):
            key, comma, where = part.strip().partition(", ")
            assert key in keys, f"{owner}: {key!r} of {source!r} is not in refs.bib"
            assert comma and where.strip(), f"{owner}: {source!r} does not say where"


def test_every_public_class_is_documented():
    for cls in classes():
        if not cls.__name__.startswith("_") and "." not in cls.__qualname__:
            assert (cls.__doc__ or "").strip(), cls
