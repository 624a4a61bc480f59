"""How data move a posterior's kernel, and which theory says where to."""

import functools
import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.learner import AbstractLearner, Posterior
from widthwise.limits.dkm.layers import is_linear
from widthwise.limits.table import depth_of
from widthwise.measure.base import AbstractInstrument, Finding, Panel, Series, Table, titled
from widthwise.measure.theories import Setting, Theory, mean_variance, theories
from widthwise.problem import pose

THEORIES = ("NNGP", "deep kernel machine", "proportional limit")
COLUMNS = (
    "width", "hidden layers", "rows / width", *(f"distance to {name}" for name in THEORIES),
    "± over seeds", "variance / NNGP's", *(f"as the {name} has it" for name in THEORIES[1:]),
    "nearest",
)  # fmt: skip


class KernelRenormalisation(AbstractInstrument):
    """How far a finite network's posterior is from the NNGP, and which of three theories it is by.

    >>> print(KernelRenormalisation()(runs))
    Kernels are renormalised by a posterior, and this family has GradientDescent: use Posterior().

    Takes `Runs` under `Posterior`. The kernel is that of the last hidden layer's features at the
    probe rows, in the posterior's mean; its distance to a theory's is the Frobenius norm of their
    difference over that of the NNGP's kernel. Beside it stands the mean variance of an output at
    the probe rows over the NNGP's, which without noise is the scale Q of the output's kernel.

    The theories are the NNGP, the kernel as drawn; the deep kernel machine, for rows few beside the
    width or outputs that come in copies; the proportional limit, for rows in proportion to the
    width. All are computed anew from network, data and noise. For networks with nonlinearities the
    last is a heuristic. A theory that knows no such network is left out, and so is the machine on
    more than 600 rows.
    """

    source: ClassVar[str] = (
        "li2021, kernel renormalization; pacelli2023, effective action; "
        "yang2023theory, section 4; lee2018, eq. (4)"
    )
    learners: ClassVar[type[AbstractLearner]] = Posterior

    def __call__(self, runs) -> Finding:
        title = titled("Kernel renormalisation", runs)
        said = _nothing(runs)
        if said is None:
            measured = [_Measured.of(runs, width) for width in runs.widths]
            if "NNGP" in measured[0].known:
                return _finding(self, title, runs, measured)
            said = "The NNGP, which kernels are renormalised from, knows no such network."
        return Finding("KernelRenormalisation", title, said, {}, Table((), ()))


def _nothing(runs: Any) -> str | None:
    """Why there is nothing to measure."""
    learner = runs.family.learner
    if not isinstance(learner, Posterior):
        return (
            f"Kernels are renormalised by a posterior, and this family has "
            f"{type(learner).__name__}: use Posterior()."
        )
    if not runs.widths:
        return "No finite width was conditioned: there is no kernel to compare with theories."
    if not runs.runs[0].trajectory.kernels:
        return "This network has no hidden layer whose features are logged."
    return None


class _Measured(NamedTuple):
    """A width's kernel and its standard error over seeds, its variance, and what theories say."""

    width: int
    setting: Setting
    kernel: Float[np.ndarray, "q q"]
    error: float
    variance: float
    known: dict[str, Theory]

    @classmethod
    def of(cls, runs: Any, width: int) -> "_Measured":
        own, problem = runs.at(width), pose(runs.data, "mse")
        setting = Setting.of(own[0], problem)
        kernels = np.array([list(run.trajectory.kernels.values())[-1][-1] for run in own])
        mean, count = kernels.mean(axis=0), len(own)
        square = np.sum((kernels - mean) ** 2)
        error = math.sqrt(square / (count * (count - 1))) if count > 1 else math.nan
        variances = [
            mean_variance(functools.partial(_with_covariance, run), problem) for run in own
        ]
        return cls(width, setting, mean, error, float(np.mean(variances)), theories(setting))

    def distances(self) -> dict[str, float]:
        """Of the kernel to each theory's, relative to the NNGP's."""
        return {
            name: float(np.linalg.norm(self.kernel - theory.kernel)) / self.size
            for name, theory in self.known.items()
        }

    @property
    def size(self) -> float:
        return float(np.linalg.norm(self.known["NNGP"].kernel))

    @property
    def ratio(self) -> float:
        """Training rows for each unit of the narrowest hidden layer."""
        least = min(self.setting.widths, default=self.setting.width)
        return len(self.setting.problem.x_train) / least


def _with_covariance(run: Any, x: np.ndarray, covariance: bool) -> Any:
    return run.predict(x, covariance=covariance)


def _finding(
    instrument: AbstractInstrument, title: str, runs: Any, measured: list[_Measured]
) -> Finding:
    rows, told, curves = [], [], {name: [] for name in THEORIES}
    for one in measured:
        away, error = one.distances(), one.error / one.size
        near = _nearest(away, error)
        unit = one.known["NNGP"].variance
        scales = [
            one.known[name].variance / unit if name in one.known else None for name in THEORIES
        ]
        rows.append((
            one.width, depth_of(one.setting.network), one.ratio,
            *(away.get(name) for name in THEORIES), error, one.variance / unit, *scales[1:],
            " or ".join(near),
        ))  # fmt: skip
        told.append(_told(one, away, near))
        for name, value in away.items():
            curves[name].append((float(one.width), value))
    sentence = f"The last hidden layer's kernel: {'; '.join(told)}."
    if curves["proportional limit"] and not is_linear(runs.family.network):
        sentence += (
            " With nonlinearities the proportional limit is a heuristic: it takes the features for "
            "Gaussian ones."
        )
    numbers = {"rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}
    return Finding(
        "KernelRenormalisation", title, sentence, numbers, Table(COLUMNS, tuple(rows)),
        (_panel(curves),), (instrument.source,),
    )  # fmt: skip


def _nearest(away: dict[str, float], error: float) -> list[str]:
    """The nearest theory, and others that are as near within the error over seeds."""
    reach = min(away.values()) + (error if math.isfinite(error) else 0.0)
    return [name for name, value in sorted(away.items(), key=lambda x: x[1]) if value <= reach]


def _told(one: _Measured, away: dict[str, float], near: list[str]) -> str:
    where = f"at width {one.width} ({one.ratio:.2g} training rows per unit)"
    moved = f"{where} it is {away['NNGP']:.1%} from the NNGP's"
    if len(away) == 1:
        return moved
    others = [f"{name} {x:.1%}" for name, x in away.items() if name not in ("NNGP", *near)]
    beside = f" ({', '.join(others)})" if others else ""
    if len(near) > 1:
        return f"{moved}, and {' and '.join(near)} are equally near within the seeds' error{beside}"
    if near == ["NNGP"]:
        return f"{moved}, the nearest{beside}"
    return f"{moved} and nearest to the {near[0]}'s, {away[near[0]]:.1%} away{beside}"


def _panel(curves: dict[str, list[tuple[float, float]]]) -> Panel:
    series = []
    for name, points in curves.items():
        shown = [(x, y) for x, y in points if y > 0]
        if shown:
            x, y = zip(*shown, strict=True)
            series.append(Series(name, x, y))
    return Panel(
        "Distance of the last features' kernel", "width", "relative distance", tuple(series),
        "log", "log",
    )  # fmt: skip
