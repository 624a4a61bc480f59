"""Runs to a result: every instrument measures them, and what they used is written down."""

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import widthwise
from widthwise import measure
from widthwise.lookup import offered
from widthwise.measure import AbstractInstrument, Agreement, Finding
from widthwise.measure.base import label, name_of
from widthwise.reporting.cite import cite
from widthwise.reporting.result import Result
from widthwise.reporting.verdict import headline

VERSIONED = ("jax", "equinox", "optax", "diffrax", "numpy", "scipy", "scikit-learn")
STEP_DEFAULT = "the largest stable one times the learner's safety"


def build(
    what: Any,
    *,
    settings: list[dict[str, Any]] | None = None,
    tolerance: float = 0.1,
    baseline: dict[str, Any] | None = None,
    seed: int | None = None,
    seconds: Mapping[str, float | None] | None = None,
    command: str = "",
    say: Callable[[str], None] = lambda sentence: None,
) -> Result:
    """Measures runs with every instrument of `widthwise.measure` and says what came out.

    >>> build(runs).headline  # doctest: +SKIP
    ('Under NTK scaling with GradientDescent, the network is described by its limit, ...',)

    Families with finite widths are measured one by one; `Agreement` compares all of them.

    Args:
        what: what `Family.train` returns, or a list of that on the same data.
        settings: rows of `settings_of`; those of the families unless given.
        tolerance: of the instruments that have one: the relative gap that counts as agreement.
        baseline: name, score and seconds of a method outside the table.
        seed: of the split and the batches.
        seconds: spent on each family, and in all; the runs' own unless given.
        command: what gives the same result on a command line.
        say: called with one sentence for each finding as it is made.

    Raises ValueError where nothing was trained, or on different data.
    """
    families = _checked(what)
    apart, together = _instruments(tolerance)
    findings: list[Finding] = []

    def add(finding: Finding) -> Finding:
        findings.append(finding)
        say(f"{finding.title}: {finding.sentence}")
        return finding

    measured = [
        (runs, {type(use).__name__: add(use(runs)) for use in apart if _asks(use, runs)})
        for runs in families
        if runs.widths
    ]
    for instrument in together:
        add(_with_baseline(instrument(families), baseline))
    data, family = families[0].data, families[0].family
    return Result(
        title=f"One network at every width, on {data.name}",
        headline=(*headline(measured, families), findings[-1].sentence),
        network=repr(family.network),
        data=described(data),
        settings=[*(settings or _settings_of_families(families)), *_step_sizes(families)],
        findings=[finding.to_json() for finding in findings],
        open_cells=_open_cells(families),
        baseline=baseline,
        sources=_sources(families, findings),
        versions=_versions(),
        seed=families[0].order if seed is None else seed,
        seconds=dict(seconds or _seconds(families)),
        warnings=_notes(families),
        command=command,
    )  # fmt: skip


def described(data: Any) -> dict[str, Any]:
    """What a page tells of a data set."""
    return {
        "name": data.name, "task": data.task, "n_train": len(data.x_train),
        "n_test": len(data.x_test), "n_features": data.x_train.shape[1],
        "n_outputs": data.n_outputs, "notes": list(data.notes),
    }  # fmt: skip


def settings_of(asked: Any, usual: Any) -> list[dict[str, Any]]:
    """One row a field of two values of a dataclass, telling what was chosen from what was left."""
    rows = []
    for field in dataclasses.fields(asked):
        value, default = getattr(asked, field.name), getattr(usual, field.name)
        rows.append({"name": field.name, "value": shown(value), "default": shown(default),
                     "chosen": bool(value != default)})  # fmt: skip
    return rows


def shown(value: Any) -> str:
    """A setting as people write it: tuples without brackets, infinity as ∞."""
    if isinstance(value, tuple):
        return ", ".join(shown(entry) for entry in value)
    if isinstance(value, float):
        return "∞" if value == math.inf else f"{value:g}"
    return repr(value)


def _checked(what: Any) -> list[Any]:
    families = list(what) if isinstance(what, list | tuple) else [what]
    for runs in families:
        if not all(callable(getattr(type(runs), name, None)) for name in ("at", "from_start_of")):
            raise ValueError(
                f"A report is made of what Family.train returns, or of a Result; "
                f"{type(runs).__name__} came."
            )
    if not any(runs.runs for runs in families):
        raise ValueError("No member was trained, so there is nothing to report: train a family.")
    if len({runs.data.fingerprint() for runs in families}) > 1:
        raise ValueError("These families saw different data: write one report for each data set.")
    return families


def _instruments(tolerance: float) -> tuple[list[AbstractInstrument], list[Agreement]]:
    """Those that measure one family, and the one that compares all."""
    apart = []
    for kind in offered(measure, AbstractInstrument).values():
        settings = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        if kind is not Agreement:
            apart.append(kind(tolerance=tolerance) if "tolerance" in settings else kind())
    return apart, [Agreement()]


def _asks(instrument: AbstractInstrument, runs: Any) -> bool:
    """Whether an instrument has something to say of a family with this learner."""
    return isinstance(runs.family.learner, instrument.learners)


def _with_baseline(finding: Finding, baseline: dict[str, Any] | None) -> Finding:
    if baseline is None:
        return finding
    row = (baseline["name"], "", baseline["score"], None, None, None, baseline["seconds"])
    table = dataclasses.replace(finding.table, rows=(*finding.table.rows, row))
    score = f"{baseline['score']:.3f}"
    if "accuracy" in finding.numbers["score"]:
        score = f"{baseline['score']:.1%}"
    sentence = f"{finding.sentence} Baseline ({baseline['name']}): {score}."
    return dataclasses.replace(finding, table=table, sentence=sentence)


def _settings_of_families(families: Sequence[Any]) -> list[dict[str, Any]]:
    """Of families trained in Python: scaling and learner have no default, widths and seeds do."""
    rows = []
    for field in dataclasses.fields(families[0].family):
        values = dict.fromkeys(shown(getattr(runs.family, field.name)) for runs in families)
        value, default = "; ".join(values), ""
        if field.default is not dataclasses.MISSING:
            default = shown(field.default)
        rows.append({"name": field.name, "value": value, "default": default,
                     "chosen": value != default})  # fmt: skip
    return rows


def _step_sizes(families: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"name": f"step size, {name_of(runs.family)}", "value": f"{runs.lr:.4g}",
         "default": STEP_DEFAULT, "chosen": getattr(runs.family.learner, "lr", None) is not None}
        for runs in families
        if runs.lr is not None
    ]  # fmt: skip


def _open_cells(families: Sequence[Any]) -> list[dict[str, str]]:
    return [
        {"member": f"{name_of(runs.family)}, width {shown(cell.width)}", "sentence": cell.sentence}
        for runs in families
        for cell in runs.open_cells
    ]


def _sources(families: Sequence[Any], findings: list[Finding]) -> list[dict[str, str]]:
    """Every entry of the bibliography that a rule or an instrument named, with the places in it."""
    used = [source for runs in families for run in runs.runs for source in run.sources]
    used += [source for finding in findings for source in finding.sources]
    texts: dict[str, str] = {}
    places: dict[str, list[str]] = {}
    for source in dict.fromkeys(used):
        for found in cite(source):
            texts[found.key] = found.text
            places.setdefault(found.key, []).append(found.where)
    return [
        {"key": key, "citation": text, "used": "; ".join(filter(None, dict.fromkeys(places[key])))}
        for key, text in texts.items()
    ]


def _notes(families: Sequence[Any]) -> list[str]:
    told = [
        f"{label(run.scaling)}, {run.limit or label(run.learner)}: {note}"
        for runs in families
        for run in runs.runs
        if run.start is None
        for note in run.notes
    ]
    return list(dict.fromkeys(told))


def _seconds(families: Sequence[Any]) -> dict[str, float]:
    spent: dict[str, float] = {}
    for runs in families:
        name = name_of(runs.family)
        spent[name] = round(spent.get(name, 0.0) + sum(run.seconds for run in runs.runs), 2)
    return spent


def _versions() -> dict[str, str]:
    own = {"widthwise": widthwise.__version__, "Python": platform.python_version()}
    return own | {name: importlib.metadata.version(name) for name in VERSIONED}
