"""How much every layer's features move while training: lazy against rich."""

from typing import ClassVar

import numpy as np

from widthwise.measure.base import AbstractInstrument, Finding, Panel, Series, Table, titled
from widthwise.measure.power import fit_power

STILL = 1e-4  # relative change of a kernel below which features are said to stay: float32's noise
LAZY = 0.25  # half the exponent of the NTK scaling: what moves less than n^-LAZY is called lazy


class FeatureMovement(AbstractInstrument):
    """Change of every layer's kernel over training, and its alignment with the targets.

    >>> print(FeatureMovement()(runs))  # doctest: +SKIP
    Features of the last layer move by 8 % at width 1024 (n^-0.6): lazy.

    The change is |K_t - K_0| / |K_0| of the kernel of centred features at probe rows; alignment is
    the cosine of the centred kernel with that of the targets.
    """

    source: ClassVar[str] = "kornblith2019, eq. (3); yang2021feature, Definition 3.5"

    def __call__(self, runs) -> Finding:
        title = titled("Feature movement", runs)
        if not runs.runs:
            return Finding("FeatureMovement", title, "No member was trained.", {}, Table((), ()))
        names = list(runs.runs[0].trajectory.kernels)
        if not names:
            sentence = "This network has no hidden layer whose features are logged."
            return Finding("FeatureMovement", title, sentence, {}, Table((), ()))
        members = [*runs.widths, *((float("inf"),) if runs.limit else ())]
        rows, final = [], {}
        for name in names:
            for width in members:
                found = [_moved(r.trajectory.kernels[name]) for r in runs.at(width)]
                aligned = [_alignment(r, name, runs.data) for r in runs.at(width)]
                final[name, width] = np.array([curve[-1] for curve in found])
                start, end = np.mean(aligned, axis=0)
                moved = float(final[name, width].mean())
                rows.append((name, _label(width), moved, float(start), float(end)))
        sentence, numbers = _verdict(runs, names[-1], final)
        panels = tuple(self._panel(runs, name, members) for name in names)
        table = Table(
            ("layer", "width", "change of the kernel", "alignment at start", "alignment at end"),
            tuple(rows),
        )
        return Finding("FeatureMovement", title, sentence, numbers, table, panels, (self.source,))

    def _panel(self, runs, name: str, members) -> Panel:
        series = []
        for width in members:
            own = runs.at(width)
            curves = np.array([_moved(r.trajectory.kernels[name]) for r in own])
            steps = own[0].trajectory.steps
            shown = np.isfinite(steps)
            series.append(
                Series(f"width {_label(width)}", tuple(steps[shown]), tuple(curves.mean(0)[shown]))
            )
        return Panel(f"Layer {name}", "step", "relative change of the kernel", tuple(series))


def _centred(kernel):
    """The kernel of features whose mean over the probe rows is taken off."""
    kernel = np.asarray(kernel, dtype=float)
    rows = kernel.mean(axis=-1, keepdims=True)
    return kernel - rows - kernel.mean(axis=-2, keepdims=True) + rows.mean(axis=-2, keepdims=True)


def _moved(kernels):
    kernels = _centred(kernels)
    change = np.linalg.norm(kernels - kernels[0], axis=(1, 2))
    return change / max(np.linalg.norm(kernels[0]), 1e-300)


def _alignment(run, name: str, data) -> tuple[float, float]:
    kernels = _centred(run.trajectory.kernels[name])
    targets = data.y_test if len(data.y_test) else data.y_train
    targets = targets[: kernels.shape[1]]
    wanted = _centred(targets @ targets.T)
    cosine = np.sum(kernels * wanted, axis=(1, 2)) / np.maximum(
        np.linalg.norm(kernels, axis=(1, 2)) * np.linalg.norm(wanted), 1e-300
    )
    return float(cosine[0]), float(cosine[-1])


def _label(width: float) -> str:
    return "∞" if width == float("inf") else str(int(width))


def _verdict(runs, last: str, final) -> tuple[str, dict]:
    widths = runs.widths
    if not widths:
        moved = float(final[last, float("inf")].mean())
        return f"The last hidden layer's kernel changes by {moved:.0%} at infinite width.", {}
    moves = np.array([final[last, w] for w in widths])
    law = fit_power(np.array(widths, dtype=float), np.maximum(moves, 1e-12))
    numbers = {"exponent": law.to_json(), "change_at_widest": float(moves[-1].mean())}
    told = f"The last hidden layer's kernel changes by {moves[-1].mean():.0%} at width {widths[-1]}"
    if runs.limit:
        numbers["change_at_infinity"] = float(final[last, float("inf")].mean())
        told += f" and by {numbers['change_at_infinity']:.0%} at infinite width"
    if moves.max() < STILL:
        return f"{told}: its features do not move at any width.", numbers
    low, high = law.exponent - law.uncertainty, law.exponent + law.uncertainty
    if high < -LAZY / 2:
        return f"{told}, and less the wider (n^{law.exponent:.2f}): lazy.", numbers
    if low > -LAZY and high < LAZY:
        return f"{told}, about as much as at width {widths[0]}: rich.", numbers
    return f"{told}; how this depends on the width is not resolved.", numbers
