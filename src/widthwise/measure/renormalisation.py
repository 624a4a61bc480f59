"""How data move a posterior's kernel, and which theory says where to."""

import math
from typing import Any, ClassVar

import numpy as np

from widthwise.learner import AbstractLearner, Posterior
from widthwise.limits.table import depth_of
from widthwise.measure.base import AbstractInstrument, Finding, Panel, Series, Table, titled
from widthwise.measure.theories import Setting, Theory, is_heuristic, mean_variance, theories
from widthwise.problem import pose

THEORIES = ("NNGP", "deep kernel machine", "proportional limit")
COLUMNS = (
    "width", "hidden layers", "rows / width", *(f"distance to {name}" for name in THEORIES),
    "± over seeds", "variance / NNGP's", *(f"as the {name} has it" for name in THEORIES[1:]),
    "nearest",
)  # fmt: skip
SAME = 1.0  # standard errors within which two theories are as near


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
            measured = [_measured(runs, width) for width in runs.widths]
            if "NNGP" in measured[0]["theories"]:
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


def _measured(runs: Any, width: int) -> dict[str, Any]:
    """A width's kernel, its standard error over seeds, its variance, and what theories have."""
    own, problem = runs.at(width), pose(runs.data, "mse")
    setting = Setting.of(own[0], problem)
    kernels = np.array([list(run.trajectory.kernels.values())[-1][-1] for run in own])
    mean, count = kernels.mean(axis=0), len(kernels)
    spread = np.sum((kernels - mean) ** 2) / (count * (count - 1)) if count > 1 else math.nan
    known = theories(setting)
    variances = [
        mean_variance(lambda x, c, r=run: r.predict(x, covariance=c), problem) for run in own
    ]
    return {
        "width": width, "setting": setting, "kernel": mean, "error": math.sqrt(spread),
        "variance": float(np.mean(variances)), "theories": known,
    }  # fmt: skip


def _distances(one: dict[str, Any]) -> dict[str, float]:
    known: dict[str, Theory] = one["theories"]
    size = np.linalg.norm(known["NNGP"].kernel)
    return {
        name: float(np.linalg.norm(one["kernel"] - theory.kernel) / size)
        for name, theory in known.items()
    }


def _finding(instrument, title: str, runs: Any, measured: list[dict[str, Any]]) -> Finding:
    rows, told, curves = [], [], {name: [] for name in THEORIES}
    for one in measured:
        known, setting = one["theories"], one["setting"]
        away = _distances(one)
        error = one["error"] / float(np.linalg.norm(known["NNGP"].kernel))
        nearest, tied = _nearest(away, error)
        least = min(setting.widths, default=setting.width)
        ratio = len(setting.problem.x_train) / least
        scales = [known[name].variance if name in known else None for name in THEORIES]
        unit = scales[0]
        rows.append((
            one["width"], depth_of(setting.network), ratio, *(away.get(name) for name in THEORIES), error,
            one["variance"] / unit, *(None if s is None else s / unit for s in scales[1:]),
            " or ".join(tied) if len(tied) > 1 else nearest,
        ))  # fmt: skip
        told.append(_told(one["width"], ratio, away, nearest, tied))
        for name, value in away.items():
            curves[name].append((float(one["width"]), value))
    sentence = f"The last hidden layer's kernel, {'; '.join(told)}."
    if is_heuristic(runs.family.network) and curves["proportional limit"]:
        sentence += (
            " With nonlinearities the proportional limit is a heuristic: it takes the features for "
            "Gaussian ones."
        )
    numbers = {"rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}
    return Finding(
        "KernelRenormalisation", title, sentence, numbers, Table(COLUMNS, tuple(rows)),
        (_panel(curves),), (instrument.source,),
    )  # fmt: skip


def _nearest(away: dict[str, float], error: float) -> tuple[str, list[str]]:
    """The nearest theory, and all that are as near within the error over seeds."""
    nearest = min(away, key=away.__getitem__)
    reach = away[nearest] + (SAME * error if math.isfinite(error) else 0.0)
    return nearest, [name for name, value in away.items() if value <= reach]


def _told(width: int, ratio: float, away: dict[str, float], nearest: str, tied: list[str]) -> str:
    moved = f"at width {width} ({ratio:.2g} rows a unit) {away['NNGP']:.1%} from the NNGP's"
    if len(away) == 1:
        return moved
    if len(tied) > 1:
        return f"{moved}, is within the error over seeds of {' and '.join(tied)}"
    if nearest == "NNGP":
        return f"{moved}, is nearer to that than to the others"
    others = ", ".join(
        f"{name} {value:.1%}" for name, value in away.items() if name not in ("NNGP", nearest)
    )
    beside = f" ({others})" if others else ""
    return f"{moved}, is nearest to the {nearest}'s, {away[nearest]:.1%} away{beside}"


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
