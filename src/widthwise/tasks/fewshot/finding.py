"""What a study found: a table, two figures and a sentence."""

import math
from collections.abc import Sequence

import numpy as np

from widthwise.measure.base import Finding, Panel, Series, Table
from widthwise.tasks.fewshot.study import Member, Study
from widthwise.tasks.fewshot.train import MetaRun, ran_away

SOURCE = "yang2021feature, Figure 1 and section 7.2"
# share of right answers that was published for the same members, on another choice of classes
PUBLISHED = {
    "width 2": 0.5534, "width 8192": 0.6641, "width inf": 0.6642, "kernel linear": 0.4168,
    "kernel relu-gp": 0.4760, "kernel relu-ntk": 0.4782,
}  # fmt: skip
COLUMNS = (
    "member", "test accuracy", "standard error", "seeds", "best validation", "published",
    "epochs undone", "seconds a seed",
)  # fmt: skip


def accuracy_of(runs: Sequence[MetaRun]) -> tuple[float, float]:
    """Mean test accuracy and its standard error: over seeds, or of one seed over its tasks."""
    right = np.array([run.accuracy for run in runs])
    if len(right) == 1:
        return float(right[0]), runs[0].error
    return float(right.mean()), float(right.std(ddof=1) / math.sqrt(len(right)))


def finding_of(study: Study, found: dict[Member, tuple[MetaRun, ...]]) -> Finding:
    """The finding of a study, from what `Study.run` returns."""
    scores = {member: accuracy_of(runs) for member, runs in found.items()}
    rows = [
        (
            member.name, *scores[member], len(runs),
            float(np.mean([run.validation.max() for run in runs])), PUBLISHED.get(member.name),
            sum(int(ran_away(run.losses, study.setting).sum()) for run in runs),
            float(np.mean([sum(run.seconds) for run in runs])),
        )
        for member, runs in found.items()
    ]  # fmt: skip
    setting = study.setting
    return Finding(
        instrument="FewShot",
        title=f"{setting.way}-way {setting.shot}-shot learning of characters never seen",
        sentence=_sentence(scores),
        numbers={
            member.name: {"accuracy": score, "standard_error": error,
                          "seeds": [run.accuracy for run in found[member]]}
            for member, (score, error) in scores.items()
        },
        table=Table(COLUMNS, tuple(rows)),
        panels=_panels(found, scores),
        sources=(SOURCE, "finn2017, section 5.2", "lake2015, the drawings"),
    )  # fmt: skip


def _sentence(scores: dict[Member, tuple[float, float]]) -> str:
    networks = [member for member in scores if member.width is not None]
    kernels = [member for member in scores if member.kernel is not None]
    told = []
    if networks:
        widest = networks[-1]
        told.append(f"{widest.name} tells {_percent(scores[widest])} of new drawings right")
        close = [m for m in networks[:-1] if abs(scores[m][0] - scores[widest][0]) <= 0.01]
        if close:
            names = ", ".join(f"{member.width:g}" for member in close)
            told.append(f"within 1 point of it are the widths {names}")
    if kernels:
        best = max(kernels, key=lambda member: scores[member][0])
        told.append(f"the best kernel without learned features ({best.kernel}), "
                    f"{_percent(scores[best])}")  # fmt: skip
    return "; ".join(told).capitalize() + "."


def _percent(score: tuple[float, float]) -> str:
    return f"{100 * score[0]:.1f} ± {100 * score[1]:.1f} %"


def _panels(found, scores) -> tuple[Panel, ...]:
    finite = [m for m in found if m.width is not None and m.width != math.inf]
    series = []
    if finite:
        widths = tuple(float(member.width) for member in finite)
        ends = [[scores[m][0] + side * scores[m][1] for m in finite] for side in (-1, 1)]
        series.append(Series("finite widths", widths, tuple(scores[m][0] for m in finite),
                             tuple(ends[0]), tuple(ends[1]), "points"))  # fmt: skip
        across = (widths[0], widths[-1])
        series += [
            Series(member.name, across, (scores[member][0],) * 2, style="dashed")
            for member in found if member not in finite
        ]  # fmt: skip
    epochs = tuple(range(1, 1 + len(next(iter(found.values()))[0].validation)))
    curves = [
        Series(member.name, tuple(map(float, epochs)),
               tuple(np.mean([run.validation for run in runs], axis=0).tolist()))
        for member, runs in found.items()
    ]  # fmt: skip
    learned = Panel("While training", "epoch", "validation accuracy", tuple(curves))
    if not series:
        return (learned,)
    return (Panel("New characters", "width", "test accuracy", tuple(series), "log"), learned)
