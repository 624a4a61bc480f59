"""Runs to a result: the verdict, settings, sources, open cells. The runs are made by hand."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from widthwise.learner import GradientDescent
from widthwise.measure import AbstractInstrument
from widthwise.network import Dense, Readout, Relu
from widthwise.reporting import load, report
from widthwise.reporting.build import build, settings_of
from widthwise.run import AbstractState, Prediction, Run, Trajectory
from widthwise.scaling import NTK, AbstractScaling, MuP

LAZY = NTK()
NET = Dense() >> Relu() >> Readout()
BASELINE = {"name": "RBF support vector machine", "score": 0.75, "seconds": 0.1}
Y = np.eye(2)[[0, 1, 0, 1, 1, 0, 1, 0]]


class Nothing(AbstractState):
    def predict(self, x, covariance):
        return Prediction(x, None, "")


@dataclasses.dataclass(frozen=True)
class Rows:
    """What the report and the instruments read of a `Data`."""

    name: str = "rows"
    task: str = "classification"
    x_train: Any = dataclasses.field(default_factory=lambda: np.zeros((5, 3)))
    y_train: Any = dataclasses.field(default_factory=lambda: Y[:5])
    y_test: Any = dataclasses.field(default_factory=lambda: Y)
    notes: tuple[str, ...] = ("Scaled.",)

    @property
    def x_test(self):
        return np.zeros((len(self.y_test), 3))

    n_outputs = 2

    def fingerprint(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Cell:
    width: float
    sentence: str


@dataclasses.dataclass(frozen=True)
class Settings:
    network: Any
    scaling: Any
    learner: Any
    widths: tuple[float, ...] = (64, 256, 1024, math.inf)
    seeds: int = 4


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `Family.train` returns, in the terms that the instruments use."""

    family: Settings
    data: Rows
    runs: tuple[Run, ...]
    open_cells: tuple[Cell, ...] = ()
    lr: float | None = 0.5
    order: int = 0

    @property
    def widths(self):
        return tuple(sorted({int(r.width) for r in self.runs if r.width != math.inf}))

    def at(self, width):
        return tuple(r for r in self.runs if r.width == width and r.start is None)

    @property
    def limit(self):
        return next(iter(self.at(math.inf)), None)

    def from_start_of(self, run):
        return next((r for r in self.runs if r.start == (run.width, run.seed)), None)


def run(width, seed, start, scaling, gap: float) -> Run:
    rng = np.random.default_rng([seed or 0, 0])
    noise = rng.normal(size=Y.shape)
    noise *= gap * np.sqrt(np.mean((Y - 0.5) ** 2) / np.mean(noise**2))
    last = Y - 0.5 + noise + (0.01 * start[1] if start else 0.0)
    kernel = np.eye(8) + (0.1 + gap) * np.outer(Y[:, 0], Y[:, 0])
    path = Trajectory(
        np.array([0.0, 1.0, 10.0]), np.array([1.0, 0.5, 0.1]), np.array([1.0, 0.6, 0.2 + gap / 10]),
        np.stack([0 * last + 0.1, last / 2, last]),
        {"Dense 1": np.stack([np.eye(8) * (1 + gap), kernel, kernel])},
    )  # fmt: skip
    limit = "TangentKernel" if width == math.inf else None
    notes = ("Jitter 1e-9 was added.",) if limit else ()
    return Run(
        NET, width, scaling, GradientDescent(), seed, start, limit, Nothing(), path, 0.5,
        "classification", 1.5, ("jacot2018, Theorem 1; lee2018, eq. (4)",), notes,
    )  # fmt: skip


def trained(
    scaling: AbstractScaling = LAZY,
    level=2.0,
    limit=True,
    widths=(64, 256, 1024),
    seeds=2,
    data=None,
):
    runs = [run(w, s, None, scaling, level / math.sqrt(w)) for w in widths for s in range(seeds)]
    cells: tuple[Cell, ...] = (Cell(math.inf, "The limit is open: use NTK."),)
    if limit:
        starts = [None, *((r.width, r.seed) for r in runs)]
        runs += [run(math.inf, None, start, scaling, 0.0) for start in starts]
        cells = ()
    family = Settings(NET, scaling, GradientDescent(), seeds=seeds)
    return Trained(family, data or Rows(), tuple(runs), cells)


def test_verdict_names_the_limit_and_the_width():
    result = build([trained(), trained(MuP(), limit=False)], baseline=BASELINE)
    lazy, rich, best = result.headline
    assert lazy == (
        "Under NTK scaling with GradientDescent, the network is described by its limit, "
        "TangentKernel, from width 1024 on: test predictions are within 10% of it."
    )
    assert rich.startswith(
        "Under MuP scaling with GradientDescent, the limit is still an open cell"
    )
    assert "kernel changes by" in rich
    assert best.startswith("Highest test score:") and best.endswith("machine): 75.0%.")


def test_verdict_where_no_width_is_enough():
    [line, _] = build(trained(level=20.0)).headline
    assert "no trained width is wide enough" in line and "62% away from it (tolerance 10%)" in line
    assert "Extrapolated, width about 40,000 would be." in line
    assert "from width 64 on" in build(trained(), tolerance=0.5).headline[0]


def test_verdict_without_finite_widths():
    result = build(trained(widths=()))
    assert result.headline[0].endswith("no finite width was trained.")
    assert [f["instrument"] for f in result.findings] == ["Agreement"]


def test_result_of_several_families(tmp_path):
    said = []
    result = build([trained(), trained(MuP(), limit=False)], baseline=BASELINE, seed=3,
                   command="widthwise compare rows", say=said.append)  # fmt: skip
    names = [finding["instrument"] for finding in result.findings]
    assert names == ["Consistency", "FeatureMovement"] * 2 + ["Agreement"]
    assert len(said) == len(names)
    assert result.open_cells == [
        {"member": "MuP, GradientDescent, width ∞", "sentence": "The limit is open: use NTK."}
    ]
    assert result.warnings == ["NTK, TangentKernel: Jitter 1e-9 was added."]
    assert {"jacot2018", "lee2018"} <= {source["key"] for source in result.sources}
    assert result.seconds == {"NTK, GradientDescent": 19.5, "MuP, GradientDescent": 9.0}
    assert result.data["n_train"] == 5 and result.versions["jax"]
    chosen = {row["name"] for row in result.settings if row["chosen"]}
    assert chosen == {"network", "scaling", "learner", "seeds"}
    page = report(result, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert '<tr class="open">' in text and '<tr class="baseline">' in text
    assert load(tmp_path / "result.json").headline == result.headline


def test_runs_go_straight_to_a_page(tmp_path):
    for number, what in enumerate((trained(), [trained()], (trained(),))):
        page = report(what, tmp_path / f"{number}.html")
        assert "from width 1024 on" in page.read_text(encoding="utf-8")


def test_new_instrument_is_found(monkeypatch):
    from widthwise import measure
    from widthwise.measure import FeatureMovement

    class Another(AbstractInstrument):
        source = "jacot2018, Theorem 1"
        tolerance: float = 0.1

        def __call__(self, runs):
            found = FeatureMovement()(runs)
            return dataclasses.replace(found, instrument="Another", title=f"{self.tolerance}")

    monkeypatch.setattr(measure, "Another", Another, raising=False)
    titles = [f["title"] for f in build(trained(), tolerance=0.2).findings]
    assert "0.2" in titles


def test_settings_tell_chosen_from_default():
    rows = settings_of(Settings(NET, NTK(), 1, widths=(8, math.inf)), Settings(NET, MuP(), 1))
    told = {row["name"]: (row["value"], row["chosen"]) for row in rows}
    assert told["widths"] == ("8, ∞", True) and told["network"][1] is False
    assert told["scaling"] == ("NTK()", True) and told["seeds"] == ("4", False)


@pytest.mark.parametrize(
    "what, said",
    [
        ([], "No member was trained"),
        (trained(widths=(), limit=False), "No member was trained"),
        (object(), "object came"),
        ([trained(), trained(data=Rows("other"))], "different data"),
    ],
)
def test_what_is_no_report_is_refused(what, said):
    with pytest.raises(ValueError, match=said):
        build(what)
