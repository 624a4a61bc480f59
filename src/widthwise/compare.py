"""The main job: one network at several widths and scalings on one data set, told as a page."""

import dataclasses
import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from widthwise import settings as checks
from widthwise.data import Data, names
from widthwise.family import Family
from widthwise.learner import AbstractLearner, GradientDescent, GradientFlow, Posterior
from widthwise.limits.table import regime
from widthwise.measure.agreement import accuracy, r_squared
from widthwise.measure.base import name_of
from widthwise.network import AbstractLayer, usual_network
from widthwise.network.stack import NoStack, stack_of
from widthwise.reporting import Result
from widthwise.reporting.build import build, settings_of
from widthwise.scaling import NTK, AbstractScaling, MuP

# The two limits that need no step size: they say what the lazy network could reach.
ENDS = (GradientFlow(), Posterior())


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
        projection: each rich scaling is trained once more with its gradients projected onto so
            many directions a layer, which has a limit at any depth; 0 leaves that family out.
    """

    network: AbstractLayer = usual_network()
    scalings: tuple[AbstractScaling, ...] = (NTK(), MuP())
    learner: AbstractLearner = GradientDescent(steps=100, batch_size=100)
    widths: tuple[float, ...] = (64, 256, 1024, math.inf)
    seeds: int = 4
    tolerance: float = 0.1
    seed: int = 0
    projection: int = 64

    def __post_init__(self):
        checks.whole(self, "projection", low=0)
        checks.whole(self, "seeds")
        checks.whole(self, "seed", low=0)
        checks.number(self, "tolerance", above=0)


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
        Family(settings.network, scaling, learner, settings.widths, settings.seeds)
        for scaling in settings.scalings
        for learner in _learners(settings, scaling)
    ]
    ends = [Family(settings.network, NTK(), learner, (math.inf,)) for learner in ENDS]
    asked = {(x.scaling, x.learner) for x in families if math.inf in x.widths}
    ends = [x for x in ends if (x.scaling, x.learner) not in asked]
    seconds, trained = {}, []
    for family in (*families, *ends):
        start = time.perf_counter()
        runs = family.train(data, folder=folder, progress=progress, order=settings.seed)
        seconds[name_of(family)] = round(time.perf_counter() - start, 2)
        trained.append(runs)
    if resumed := sum(runs.resumed for runs in trained):
        count = sum(len(runs.runs) for runs in trained)
        say(f"Resumed: {resumed} of {count} members were read from {folder}.")
    baseline = fit_baseline(data, settings.seed)
    seconds["baseline"] = baseline["seconds"]
    seconds["all"] = round(time.perf_counter() - began, 2)
    return build(
        trained,
        settings=settings_of(settings, Comparison()),
        tolerance=settings.tolerance,
        baseline=baseline,
        seed=settings.seed,
        seconds=seconds,
        command=command(data, settings),
        say=say,
    )


def _learners(settings: Comparison, scaling: AbstractScaling) -> list[AbstractLearner]:
    """The learner, and where features move also with projected gradients."""
    learner = settings.learner
    if (
        not settings.projection
        or not isinstance(learner, GradientDescent)
        or learner.projection is not None
        or learner.ridge
        or regime(settings.network, scaling, learner) != "rich"
    ):
        return [learner]
    try:
        stack_of(settings.network)
    except NoStack:
        return [learner]
    return [learner, dataclasses.replace(learner, projection=settings.projection)]


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


def command(data: Data, settings: Comparison) -> str:
    """The command line of a comparison; FILE and COLUMN stand where the data are no embedded set.

    >>> command(load("digits"), Comparison(seeds=8))  # doctest: +SKIP
    'widthwise compare digits --train 1347 --test 450 --seeds 8'
    """
    words = ["widthwise", "compare", data.name]
    if data.name not in dict(names()):
        words[2:] = ["FILE", "--target", "COLUMN"]
    words += ["--train", str(len(data.x_train)), "--test", str(len(data.x_test))]
    for row in settings_of(settings, Comparison()):
        if row["chosen"]:
            words += [f"--{row['name']}", row["value"].replace("∞", "inf").replace(", ", ",")]
    return shlex.join(words)
