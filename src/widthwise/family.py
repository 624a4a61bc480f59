"""Members of one network at all widths, infinity among them, trained side by side."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from widthwise.conditioning import check_conditioning, condition
from widthwise.data import Data
from widthwise.finite import FiniteNetwork
from widthwise.finite import train as train_finite
from widthwise.finite.train import InitialFunction
from widthwise.learner import AbstractLearner, Posterior, Stepwise
from widthwise.limits.base import AbstractLimit, AbstractPrepared, EmptyCell, Start, Work
from widthwise.limits.table import check_chosen, check_rules, lookup, regime
from widthwise.network.begin import trial_inputs
from widthwise.network.build import specify
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem, pose
from widthwise.progress import Progress
from widthwise.resources import ALL_OF_IT, Resources
from widthwise.run import Run
from widthwise.scaling import AbstractScaling
from widthwise.shelf import Shelf
from widthwise.stepsize import with_step_size

DATA = "widthwise.data.load(...), or from_arrays(X, y)"


class OpenCell(NamedTuple):
    """A width whose member cannot be computed yet, and why."""

    width: float
    sentence: str


@dataclasses.dataclass(frozen=True)
class Member:
    """One network at one width under one scaling and learner.

    >>> run = Member(Dense() >> Relu() >> Readout(), math.inf, NTK(), GradientFlow()).train(data)
    >>> run.limit
    'TangentKernel'

    Args:
        network: layers that end in `Readout()`.
        width: a positive whole number, or `inf`.
        scaling, learner: see `widthwise.scaling`, `widthwise.learner`.
        limit: what to compute at width inf, of `widthwise.limits`; None takes the table's.

    Raises TypeError or ValueError for what is none of these, EmptyCell (a ValueError) at width inf
    for a network with layers that have no rule there, naming what has.
    """

    network: AbstractLayer
    width: float
    scaling: AbstractScaling
    learner: AbstractLearner
    limit: AbstractLimit | None = None

    def __post_init__(self):
        _is("network", self.network, AbstractLayer, "Dense() >> Relu() >> Readout()")
        _is("scaling", self.scaling, AbstractScaling, "NTK() or MuP()")
        _is("learner", self.learner, AbstractLearner, "GradientDescent()")
        if isinstance(self.width, bool | str):
            raise TypeError(f"width is {self.width!r}: give a positive whole number, or inf.")
        if not (self.width == math.inf or (self.width >= 1 and self.width == int(self.width))):
            raise ValueError(f"width is {self.width}: give a positive whole number, or inf.")
        specify(self.network, trial_inputs(self.network), 1)  # refuses a network without a readout
        row = regime(self.network, self.scaling, self.learner)  # refuses one without a limit
        if self.limit is not None:
            _is("limit", self.limit, AbstractLimit, "Extrapolated(network, scaling, learner)")
            check_chosen(self.limit, self.network, self.scaling, self.learner)
        elif self.width == math.inf:
            check_rules(self.network, row)

    def train(
        self,
        data: Data,
        *,
        seed: int = 0,
        order: int = 0,
        logs: int = 16,
        checkpoint: str | Path | None = None,
        resources: Resources = ALL_OF_IT,
    ) -> Run:
        """Trains the member and returns its Run.

        Args:
            data: training and test rows.
            seed: initial weights of a finite width, or the draws of its posterior; infinity is the
                mean over them.
            order: seeds the batches.
            logs: number of logged times.
            checkpoint: file in which a limit that trains step by step keeps what it has done, and
                from which the same call goes on.
            resources: memory, a store of tiles and a cluster, for a posterior at width inf whose
                kernel is large.

        Raises `EmptyCell` where the limit cannot be computed, `Diverged` where training blows up.
        """
        _is("data", data, Data, DATA)
        problem = pose(data, _loss(self.learner), resources)
        self._check_resources(resources)
        self._check(problem)
        learner = with_step_size(self.network, self.scaling, self.learner, problem, (self.width,))
        label, show = f"width {self.width}", resources.progress
        if self.width < math.inf:
            with Progress(label, _steps(learner), show=show) as bar:
                return _train_finite(self, learner, problem, seed, order, logs, bar.advance)
        began, limit = time.perf_counter(), self._limit(learner)
        prepared = limit.prepare(problem, order=order, logs=logs)
        # large solves show bars of their own
        with Progress(label, 1.0, show=show and not limit.within_resources) as bar:
            work = Work(None if checkpoint is None else Path(checkpoint), bar.advance)
            return _train_limit(self, learner, prepared, problem, None, None, began, work)

    def _check(self, problem: Problem) -> None:
        """Refuses what cannot be computed, before anything is."""
        if self.width == math.inf:
            self._limit(self.learner).check(problem)
        elif isinstance(self.learner, Posterior):
            check_conditioning(self.network, int(self.width), self.scaling, self.learner, problem)
        elif not isinstance(self.learner, Stepwise):
            raise EmptyCell(
                f"{type(self.learner).__name__} is for width=inf: at width {self.width} use "
                "GradientDescent() or Adam()."
            )

    def _check_resources(self, resources: Resources) -> None:
        if not resources.named:
            return
        if self.width != math.inf or not self._limit(self.learner).within_resources:
            raise ValueError(
                f"{type(self.learner).__name__} at width {self.width} has no use for memory, store "
                "and cluster: leave them out, or train Posterior() at width inf under NTK()."
            )

    def _limit(self, learner: AbstractLearner) -> AbstractLimit:
        """At width inf, of the learner as it trains: its step size filled in."""
        return lookup(self.network, self.scaling, learner, self.limit)


@dataclasses.dataclass(frozen=True)
class Runs:
    """What `Family.train` returns: the runs of all members, and the cells left open."""

    family: "Family"
    data: Data
    runs: tuple[Run, ...]
    open_cells: tuple[OpenCell, ...]
    lr: float | None
    order: int = 0
    resumed: int = 0  # how many of the runs an earlier call had finished

    def __repr__(self) -> str:
        open_cells = f", {len(self.open_cells)} cells open" if self.open_cells else ""
        widths = ", ".join(map(str, self.widths)) + (" and inf" if self.limit else "")
        return f"Runs({len(self.runs)} runs on {self.data.name!r}, widths {widths}{open_cells})"

    @property
    def widths(self) -> tuple[int, ...]:
        """The finite widths that were trained, ascending."""
        return tuple(sorted({int(r.width) for r in self.runs if r.width != math.inf}))

    def at(self, width: float) -> tuple[Run, ...]:
        """The runs of one width, by seed; at inf the mean over initialisations."""
        return tuple(r for r in self.runs if r.width == width and r.start is None)

    @property
    def limit(self) -> Run | None:
        """The member at infinite width, or None while its cell is open."""
        found = self.at(math.inf)
        return found[0] if found else None

    def from_start_of(self, run: Run) -> Run | None:
        """The limit trained from the initial function of a finite run, if there is one; the limit
        itself where it forgets that function."""
        wanted = (int(run.width), run.seed)
        forgets = self.limit if self.limit and not any(r.start for r in self.runs) else None
        return next((r for r in self.runs if r.start == wanted), forgets)


@dataclasses.dataclass(frozen=True)
class Family:
    """One network at several widths and seeds, under one scaling and learner.

    >>> family = Family(Dense() >> Relu() >> Readout(), NTK(), GradientDescent(steps=20),
    ...                 widths=(16, math.inf), seeds=2)
    >>> [run.width for run in family.train(data, progress=False).runs if run.start is None]
    [16, 16, inf]

    Args:
        network, scaling, learner: as for `Member`.
        widths: positive whole numbers, and `inf`.
        seeds: draws of initial weights at each finite width.
        limit: as for `Member`.
    """

    network: AbstractLayer
    scaling: AbstractScaling
    learner: AbstractLearner
    widths: Sequence[float] = (64, 256, 1024, math.inf)
    seeds: int = 4
    limit: AbstractLimit | None = None

    def __post_init__(self):
        if isinstance(self.widths, int | float | str):
            raise TypeError(f"widths is {self.widths!r}: give several, for example (64, inf).")
        for width in self.widths:
            with contextlib.suppress(EmptyCell):  # a cell that is open, which `train` tells
                self._member(width)
        object.__setattr__(self, "widths", tuple(sorted(set(self.widths))))
        if not self.widths:
            raise ValueError("widths is empty: give at least one, for example (64, inf).")
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}: give at least 1.")

    def train(
        self,
        data: Data,
        *,
        folder: str | Path | None = None,
        progress: bool = True,
        order: int = 0,
        logs: int = 16,
    ) -> Runs:
        """Trains every member.

        With a `folder`, each finished run is written there, and a later call with the same
        settings and data reads it instead of training it again. Ctrl-C raises KeyboardInterrupt;
        what was finished stays in the folder, or without one in memory, and the same call
        goes on from there.
        """
        _is("data", data, Data, DATA)
        problem = pose(data, _loss(self.learner))
        open_cells = self._open_cells(problem)
        closed = [w for w in self.widths if w not in [cell.width for cell in open_cells]]
        learner = with_step_size(self.network, self.scaling, self.learner, problem, self.widths)
        settings = (self.scaling, self.learner, self.limit, data.fingerprint(), order, logs)
        shelf = Shelf(None if folder is None else Path(folder), self.network, settings)
        work = sum(_cost(w) for w in closed if w != math.inf) * self.seeds
        whole = max(work, 1.0) * (1 + (math.inf in closed))  # infinity counts as all the others
        with Progress(f"{type(self.scaling).__name__}", whole, show=progress) as bar:
            runs: list[Run] = []
            for width in closed:
                if width == math.inf:
                    bar.say("infinite width")
                    runs += self._limits(
                        problem, learner, runs, shelf, order, logs, bar, max(work, 1.0)
                    )
                else:
                    runs += self._finite(width, problem, learner, shelf, order, logs, bar)
        shelf.clear()
        lr = getattr(learner, "lr", None)
        return Runs(self, data, tuple(runs), open_cells, lr, order, len(shelf.found))

    def _member(self, width: float) -> Member:
        return Member(self.network, width, self.scaling, self.learner, self.limit)

    def _open_cells(self, problem: Problem) -> tuple[OpenCell, ...]:
        """What cannot be computed, known before anything is."""
        found: list[OpenCell] = []
        for width in self.widths:
            try:
                self._member(width)._check(problem)
            except EmptyCell as error:
                found.append(OpenCell(width, str(error)))
        return tuple(found)

    def _finite(self, width, problem, learner, shelf, order, logs, bar: Progress) -> list[Run]:
        """All seeds of one width."""
        member = self._member(width)
        unit = _cost(width) / _steps(learner)
        found = []
        for seed in range(self.seeds):
            name = f"w{int(width)}-s{seed}"
            run = shelf.get(name)
            if run is None:
                run = _train_finite(
                    member, learner, problem, seed, order, logs,
                    lambda steps: bar.advance(steps * unit),
                )  # fmt: skip
                shelf.put(name, run)
            else:
                bar.advance(_cost(width))
            found.append(run)
        return found

    def _limits(self, problem, learner, finite, shelf, order, logs, bar, unit) -> list[Run]:
        """The limit in the mean, and from the initial function of each finite run."""
        member = self._member(math.inf)
        limit = member._limit(learner)
        prepared: AbstractPrepared | None = None
        found = []
        for source in (None, *(finite if limit.follows_start else ())):
            name = "inf" if source is None else f"inf-from-w{int(source.width)}-s{source.seed}"
            run = shelf.get(name)
            if run is None:
                began = time.perf_counter()
                if prepared is None:
                    prepared = limit.prepare(problem, order=order, logs=logs)
                start = None if source is None else _start_of(source, problem)
                label = None if source is None else (int(source.width), source.seed)
                work = Work(shelf.checkpoint(name), lambda share: bar.advance(share * unit))
                run = _train_limit(member, learner, prepared, problem, start, label, began, work)
                shelf.put(name, run)
            found.append(run)
        return found


def _is(name: str, value: Any, kind: type, example: str) -> None:
    """Refuses what is no value of a kind: a name, a class instead of an instance, another noun."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}: give a value such as {example}.")


def _loss(learner: AbstractLearner):
    return "mse" if isinstance(learner, Posterior) else learner.loss  # type: ignore[attr-defined]


def _steps(learner) -> int:
    return 1 if isinstance(learner, Posterior) else learner.steps


def _cost(width: float) -> float:
    return width**2 + 64 * width  # multiplications of a step, up to a constant


def _train_finite(member, learner, problem, seed, order, logs, advance) -> Run:
    if isinstance(learner, Posterior):
        return _condition_finite(member, learner, problem, seed, advance)
    assert learner.lr is not None  # with_step_size has filled it in
    began = time.perf_counter()
    net = FiniteNetwork(
        member.network, int(member.width), problem.x_train.shape[1], problem.y_train.shape[1],
        member.scaling, learner.entrywise,
    )  # fmt: skip
    state, trajectory = train_finite(
        net, problem, learner, lr=learner.lr, seed=seed, order=order, logs=logs, advance=advance
    )
    return Run(
        member.network, int(member.width), member.scaling, learner, seed, None, None, state,
        trajectory, problem.offset, problem.task, time.perf_counter() - began,
        sources_of(member.network, member.scaling),
    )  # fmt: skip


def _condition_finite(member, learner, problem, seed, advance) -> Run:
    began = time.perf_counter()
    found = condition(
        member.network, int(member.width), member.scaling, learner, problem, seed=seed,
        advance=advance,
    )  # fmt: skip
    return Run(
        member.network, int(member.width), member.scaling,
        dataclasses.replace(learner, noise=found.noise), seed, None, None, found.state,
        found.trajectory, problem.offset, problem.task, time.perf_counter() - began,
        (*sources_of(member.network, member.scaling), found.state.source), found.notes,
    )  # fmt: skip


def _train_limit(member, learner, prepared, problem, start, label, began, work) -> Run:
    trained = prepared.train(start, work)
    limit = member._limit(learner)
    return Run(
        member.network, math.inf, member.scaling, learner, None, label, type(limit).__name__,
        trained.state, trained.trajectory, problem.offset, problem.task,
        time.perf_counter() - began,
        (*sources_of(member.network, member.scaling), limit.source), trained.notes,
    )  # fmt: skip


def _start_of(run: Run, problem: Problem) -> Start:
    """The initial function of a finite run: its weights are drawn again from its seed."""
    net = run.state.net  # type: ignore[attr-defined]
    assert run.seed is not None
    function = InitialFunction(net, run.seed)
    return Start(function(problem.x_train), function(problem.x_test), function)


def sources_of(network: AbstractLayer, scaling: AbstractScaling) -> tuple[str, ...]:
    """The sources of the rules that a network and its scaling use."""
    source = getattr(network, "source", None)
    own = () if source is None else (source,)
    found = [key for layer in network.inside for key in sources_of(layer, scaling)]
    return tuple(dict.fromkeys((*own, *(found or (scaling.source,)))))
