"""The main job: one network at several widths and scalings on one data set, told as a page."""

import dataclasses
import importlib.metadata
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from widthwise.data import Data
from widthwise.family import Family, Runs
from widthwise.learner import AbstractLearner, GradientDescent, GradientFlow, Posterior
from widthwise.measure import AbstractInstrument, Agreement, Consistency, FeatureMovement, Finding
from widthwise.measure.agreement import accuracy, r_squared
from widthwise.network import AbstractLayer, Dense, Readout, Relu
from widthwise.report import Result, cite
from widthwise.scaling import NTK, AbstractScaling, MuP

# The two limits that need no step size: they say what the lazy network could reach.
ENDS = (GradientFlow(), Posterior())
VERSIONED = ("widthwise", "jax", "equinox", "optax", "numpy", "scipy", "scikit-learn")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What to compare; every field has the default of `widthwise compare`.

    Args:
        network: layers that end in `Readout()`.
        scalings: one family is trained for each.
        learner: of the families; at infinity NTK to the end of training and NNGP stand beside.
        widths, seeds: of each family.
        tolerance: the relative gap that counts as agreement.
        seed: of the split, the batches and the baseline.
    """

    network: AbstractLayer = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
    scalings: tuple[AbstractScaling, ...] = (NTK(), MuP())
    learner: AbstractLearner = GradientDescent(steps=200, batch_size=100)
    widths: tuple[float, ...] = (64, 256, 1024, math.inf)
    seeds: int = 4
    tolerance: float = 0.1
    seed: int = 0


def compare(
    data: Data,
    settings: Comparison | None = None,
    *,
    folder: str | Path | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda sentence: None,
) -> Result:
    """Trains the families of a comparison and returns what the page tells.

    Args:
        data: training and test rows.
        settings: `Comparison()` unless given.
        folder: where finished runs are kept, so that a second call resumes.
        progress: whether to show a bar on terminals.
        say: called with one sentence for each finding as it is made.
    """
    settings = Comparison() if settings is None else settings
    began = time.perf_counter()
    families = [
        Family(settings.network, scaling, settings.learner, settings.widths, settings.seeds)
        for scaling in settings.scalings
    ]
    ends = [Family(settings.network, NTK(), learner, (math.inf,)) for learner in ENDS]
    seconds, trained = {}, []
    for family in (*families, *ends):
        start = time.perf_counter()
        runs = family.train(data, folder=folder, progress=progress, order=settings.seed)
        seconds[_name(family)] = round(time.perf_counter() - start, 2)
        trained.append(runs)
    main = trained[: len(families)]
    findings: list[Finding] = []
    instruments: tuple[AbstractInstrument, ...] = (
        Consistency(tolerance=settings.tolerance), FeatureMovement(),
    )  # fmt: skip
    for runs in main:
        for instrument in instruments:
            findings.append(instrument(runs))
            say(f"{findings[-1].title}: {findings[-1].sentence}")
    start = time.perf_counter()
    baseline = fit_baseline(data, settings.seed)
    seconds["baseline"] = round(time.perf_counter() - start, 2)
    agreement = Agreement()(trained)
    findings.append(_with_baseline(agreement, baseline))
    say(f"{findings[-1].title}: {findings[-1].sentence}")
    seconds["all"] = round(time.perf_counter() - began, 2)
    return _result(data, settings, trained, main, findings, baseline, seconds)


def fit_baseline(data: Data, seed: int) -> dict[str, Any]:
    """A support vector machine with an RBF kernel, its C and width chosen by cross-validation."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC, SVR

    start = time.perf_counter()
    grid = {"C": [1, 10, 100], "gamma": [s / data.x_train.shape[1] for s in (0.1, 0.3, 1.0)]}
    rows = slice(0, 5000)  # a support vector machine is cubic in the rows
    if data.task == "classification":
        smallest = int(np.bincount(data.labels_train[rows]).min())
        search = GridSearchCV(SVC(random_state=seed), grid, cv=max(2, min(3, smallest)))
        search.fit(data.x_train[rows], data.labels_train[rows])
        guess = np.eye(data.n_outputs)[search.predict(data.x_test)]
        score = accuracy(guess, data.y_test)
    else:
        outputs = []
        for column in data.y_train.T:
            search = GridSearchCV(SVR(), grid, cv=min(3, len(data.x_train)))
            outputs.append(search.fit(data.x_train[rows], column[rows]).predict(data.x_test))
        score = r_squared(np.stack(outputs, axis=1), data.y_test)
    name = "RBF support vector machine"
    return {"name": name, "score": score, "seconds": round(time.perf_counter() - start, 2)}


def _with_baseline(finding: Finding, baseline: dict[str, Any]) -> Finding:
    row = (baseline["name"], "", baseline["score"], None, None, None, baseline["seconds"])
    table = dataclasses.replace(finding.table, rows=(*finding.table.rows, row))
    score = finding.numbers["score"]
    shown = f"{baseline['score']:.1%}" if "accuracy" in score else f"{baseline['score']:.3f}"
    sentence = f"{finding.sentence} Baseline ({baseline['name']}): {shown}."
    return dataclasses.replace(finding, table=table, sentence=sentence)


def _name(family: Family) -> str:
    return f"{type(family.scaling).__name__}, {type(family.learner).__name__}"


def _headline(main: list[Runs], findings: list[Finding]) -> tuple[str, ...]:
    """One sentence a scaling: which limit describes the network, and from which width on."""
    lines = []
    for runs, consistency, movement in zip(main, findings[::2], findings[1::2], strict=False):
        name = type(runs.family.scaling).__name__
        if runs.limit is not None and runs.widths:
            lines.append(f"Under {name} scaling the limit is {runs.limit.limit}. {consistency}")
        elif runs.widths:
            lines.append(f"Under {name} scaling features move. {movement} {consistency}")
        else:
            lines.append(f"Under {name} scaling no finite width was trained.")
    return tuple(lines)


def _result(data, settings, trained, main, findings, baseline, seconds) -> Result:
    cells = [
        {"member": f"{_name(runs.family)}, width {_width(cell.width)}", "sentence": cell.sentence}
        for runs in trained
        for cell in runs.open_cells
    ]
    used = [s for runs in trained for run in runs.runs for s in run.sources]
    used += [s for finding in findings for s in finding.sources]
    citations = {c.key: c.text for source in dict.fromkeys(used) for c in cite(source)}
    notes = [n for runs in trained for run in runs.runs if run.start is None for n in run.notes]
    return Result(
        title=f"One network at every width, on {data.name}",
        headline=_headline(main, findings),
        network=repr(settings.network),
        data={
            "name": data.name, "task": data.task, "n_train": len(data.x_train),
            "n_test": len(data.x_test), "n_features": data.x_train.shape[1],
            "n_outputs": data.n_outputs, "notes": list(data.notes),
        },
        settings=_settings(settings, main),
        findings=[finding.to_json() for finding in findings],
        open_cells=cells,
        baseline=baseline,
        sources=[{"key": key, "citation": text} for key, text in citations.items()],
        versions=_versions(),
        seed=settings.seed,
        seconds=seconds,
        warnings=list(dict.fromkeys(notes)),
    )  # fmt: skip


def _settings(settings: Comparison, main: list[Runs]) -> list[dict[str, Any]]:
    default = Comparison()
    rows = []
    for field in dataclasses.fields(settings):
        value, usual = getattr(settings, field.name), getattr(default, field.name)
        rows.append({"name": field.name, "value": _shown(value), "default": _shown(usual),
                     "chosen": value != usual})  # fmt: skip
    for runs in main:
        if runs.lr is not None:
            name = f"step size, {type(runs.family.scaling).__name__}"
            asked = getattr(settings.learner, "lr", None)
            rows.append({"name": name, "value": f"{runs.lr:.4g}",
                         "default": "the largest stable one times the learner's safety",
                         "chosen": asked is not None})  # fmt: skip
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_width(x) if isinstance(x, int | float) else repr(x) for x in value)
    return repr(value)


def _width(width: float) -> str:
    return "∞" if width == math.inf else f"{width:g}"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in VERSIONED}
