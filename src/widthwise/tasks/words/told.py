"""What a study found, as findings of a report."""

import math
from typing import Any

import numpy as np

from widthwise.measure.base import Finding, Panel, Series, Table
from widthwise.tasks.words.analogies import Analogies, Question, gap
from widthwise.tasks.words.picture import CitiesAndStates, Plane
from widthwise.tasks.words.settings import BagOfWords

RESOLVED = 2.0  # standard errors


def width_of(width: float) -> str:
    """
    >>> width_of(64), width_of(math.inf)
    ('64', '∞')
    """
    return "∞" if width == math.inf else f"{width:g}"


def size_of(count: int) -> str:
    """
    >>> size_of(1_090_000_000), size_of(42_319_872), size_of(5120)
    ('1.1 GB', '42 MB', '5.1 kB')
    """
    for power, unit in ((9, "GB"), (6, "MB")):
        if count >= 10**power:
            return f"{count / 10**power:.2g} {unit}"
    return f"{count / 10**3:.2g} kB"


def widths_of(members: Any) -> list[float]:
    """Widths in rising order."""
    return sorted({member.width for member in members})


def training(members: Any) -> Finding:
    """What every member took."""
    rows = tuple((width_of(m.width), m.seed, m.seconds, m.words_per_second) for m in members)
    total = sum(m.seconds for m in members)
    return Finding(
        instrument="Words",
        title="Trainings",
        sentence=f"All {len(rows)} trainings took {total:,.0f} s. Words are those of the "
        "vocabulary, before sub-sampling.",
        numbers={"seconds": total},
        table=Table(("width", "seed", "seconds", "words a second"), rows),
        sources=(BagOfWords.source,),
    )


def _correct(members: Any, width: float) -> np.ndarray:
    """Answers of one width, a row a seed."""
    return np.stack([m.answers.correct for m in members if m.width == width])


def accuracy(members: Any, questions: tuple[Question, ...]) -> Finding:
    """Analogy accuracy of all widths, and how each differs from the widest."""
    widths = widths_of(members)
    widest = _correct(members, widths[-1])
    rows, numbers, gaps = [], {}, []
    for width in widths:
        correct = _correct(members, width)
        between = gap(widest, correct)
        seeds = correct.mean(axis=1)
        rows.append(
            (width_of(width), 100 * float(correct.mean()), len(seeds), 100 * float(np.ptp(seeds)),
             100 * between.mean, 100 * between.error)
        )  # fmt: skip
        numbers[width_of(width)] = {"accuracy": float(correct.mean()), **between._asdict()}
        if width != widths[-1]:
            apart = abs(between.mean) > RESOLVED * between.error
            way = "above" if between.mean > 0 else "below"
            gaps.append(
                f"{100 * abs(between.mean):.2f} ± {100 * between.error:.2f} points {way} width "
                f"{width_of(width)} ({'resolved' if apart else 'not resolved'})"
            )
    asked = len(members[0].answers.asked)
    scores = ", ".join(f"{row[1]:.2f} % at width {row[0]}" for row in rows)
    sentence = f"Of {asked:,} questions, {scores}."
    if gaps:
        sentence += f" Width {width_of(widths[-1])} is {', '.join(gaps)}; standard errors are "
        sentence += "paired over questions."
    columns = (
        "width", "accuracy, %", "seeds", "range over seeds", "widest minus this", "standard error",
    )  # fmt: skip
    return Finding(
        instrument="Analogies",
        title="Analogies",
        sentence=sentence,
        numbers={"asked": asked, "questions": len(questions), "widths": numbers},
        table=Table(columns, tuple(rows)),
        panels=_accuracy_panel(rows, widths),
        sources=(Analogies.source,),
    )


def _accuracy_panel(rows: Any, widths: list[float]) -> tuple[Panel, ...]:
    finite = [(width, row) for width, row in zip(widths, rows, strict=True) if width < math.inf]
    if len(finite) < 2:
        return ()
    x = tuple(float(width) for width, _ in finite)
    series = [Series("finite widths", x, tuple(row[1] for _, row in finite))]
    if widths[-1] == math.inf:
        level = rows[-1][1]
        series.append(Series("width ∞", (x[0], x[-1]), (level, level), style="dashed"))
    return (Panel("Analogies", "width", "accuracy, %", tuple(series), x_scale="log"),)


def sections(members: Any, questions: tuple[Question, ...]) -> Finding:
    """Analogy accuracy by section of the questions."""
    widths = widths_of(members)
    section = np.array([questions[k].section for k in members[0].answers.asked])
    rows = []
    for name in dict.fromkeys(q.section for q in questions):
        inside = section == name
        if inside.any():
            scores = [100 * float(_correct(members, w)[:, inside].mean()) for w in widths]
            rows.append((name, int(inside.sum()), *scores))
    best = max(rows, key=lambda row: row[-1])
    return Finding(
        instrument="Analogies",
        title="Analogies by section",
        sentence=f"Width {width_of(widths[-1])} is best in {best[0]}: {best[-1]:.1f} % of "
        f"{best[1]:,}.",
        numbers={"sections": {row[0]: row[1:] for row in rows}},
        table=Table(("section", "questions", *(f"width {width_of(w)}, %" for w in widths)),
                    tuple(rows)),
        sources=(Analogies.source,),
    )  # fmt: skip


def shown_planes(limit: Plane, members: Any) -> list[Plane]:
    """The kernel limit, the narrowest width and the widest, in the first seed."""
    first = [m.plane for m in members if m.seed == 0 and m.plane is not None]
    return [limit, *(first[k] for k in dict.fromkeys((0, len(first) - 1)))]


def picture(limit: Plane, members: Any) -> Finding:
    """The cities and states at the narrowest width, the widest, and in the kernel limit."""
    planes = shown_planes(limit, members)
    cities = int((~limit.is_state).sum())
    scores = ", ".join(f"{plane.accuracy:.0%} ({plane.title})" for plane in planes)
    rows = [(limit.title, "", 100 * limit.accuracy)]
    rows += [(m.plane.title, m.seed, 100 * m.plane.accuracy) for m in members if m.plane]
    return Finding(
        instrument="CitiesAndStates",
        title="Cities and states",
        sentence=f"The nearest centroid on two principal components tells {cities} cities from "
        f"{len(limit.words) - cities} states at {scores}; each word left out in turn. The kernel "
        "limit does not move U = I, whose components are all alike: any basis will do, the panel "
        "shows a drawn one, the number is the mean over 200, and chance is 50 %.",
        numbers={"accuracy": {row[0] + (f", seed {row[1]}" if row[1] != "" else ""): row[2] / 100
                              for row in rows}},
        table=Table(("vectors", "seed", "accuracy, %"), tuple(rows)),
        panels=tuple(map(_panel, planes)),
        sources=(CitiesAndStates.source,),
    )  # fmt: skip


def _panel(plane: Plane) -> Panel:
    series = []
    for kind, label in ((False, "cities"), (True, "states")):
        x, y = plane.points[plane.is_state == kind].T
        series.append(Series(label, tuple(map(float, x)), tuple(map(float, y)), style="points"))
    title = f"{plane.title}: {plane.accuracy:.0%}"
    return Panel(title, "first component", "second component", tuple(series))


def neighbours(words: tuple[str, ...], members: Any) -> Finding:
    """The nearest words of given ones, in the first seed."""
    first = [member for member in members if member.seed == 0]
    rows = [
        (word, width_of(member.width), ", ".join(near for near, _ in member.near[place]))
        for place, word in enumerate(words)
        for member in first
    ]
    return Finding(
        instrument="Words",
        title="Nearest neighbours",
        sentence=f"By cosine, at width {rows[-1][1]}, the nearest to {rows[-1][0]} are "
        f"{rows[-1][2]}.",
        numbers={f"{word}, width {width}": near for word, width, near in rows},
        table=Table(("word", "width", "nearest"), tuple(rows)),
        sources=(BagOfWords.source,),
    )
