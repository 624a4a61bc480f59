"""One inline SVG for each panel of a finding, for light and dark pages, narrow and wide."""

import html
import io
import itertools
import math
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    ScalarFormatter,
)

# Okabe and Ito's order of hues, darker than theirs on white; page.css gives each a lighter tone on
# dark pages. A curve is told by its dashes and marker as well.
PALETTE = ("#0b62a8", "#c2500a", "#0a7d5a", "#9c3f7f", "#7a6200", "#5b6470")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ((0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1.5)), (0, (9, 3)))
STYLE = {
    "font.size": 12, "axes.titlesize": 12.5, "axes.titleweight": "bold", "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#000000", "grid.alpha": 0.14, "grid.linewidth": 0.7,
    "lines.linewidth": 1.8, "lines.markersize": 5.5, "legend.fontsize": 11,
    "svg.fonttype": "none", "text.parse_math": False, "axes.formatter.useoffset": False,
}  # fmt: skip
INCHES, BODY, ROW = 5.0, 3.45, 0.24  # 360 units wide: one unit is one CSS pixel on a phone
MANY_POINTS = 24  # above which a curve carries no markers
LABEL = 48  # letters of a legend line


def draw(panel: Mapping[str, Any], name: str) -> str:
    """One SVG element whose text stays text and whose colours follow the page.

    >>> curve = {"label": "gap", "x": [64, 256], "y": [0.2, 0.1]}
    >>> panel = {"title": "Gap", "x_label": "width", "y_label": "gap", "series": [curve]}
    >>> draw(panel, "first")[:4]
    '<svg'

    Args:
        panel: a `Panel` as its JSON tells it; None in a curve is a gap in it.
        name: begins every id in the SVG: another one for each figure of a page.
    """
    series = [_Curve(entry, panel) for entry in panel["series"]]
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        rows = sum(curve.legend.count("\n") + 1 for curve in series)
        figure = Figure(figsize=(INCHES, BODY + ROW * rows), dpi=72, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(panel["title"], loc="left")
        axes.set(xlabel=panel["x_label"], ylabel=panel["y_label"])
        _scale(axes, panel, series)
        drawn = _plot(axes, series)
        if drawn:
            labels = [curve.legend for curve, _ in drawn]
            figure.legend([handle for _, handle in drawn], labels, loc="outside lower left",
                          frameon=False, handlelength=3.2, borderaxespad=0)  # fmt: skip
        else:
            axes.text(0.5, 0.5, "no points", ha="center", transform=axes.transAxes)
        written = io.StringIO()
        canvas.print_svg(written, metadata={"Date": None})
    return _inline(written.getvalue(), name, panel["title"])


class _Curve:
    """The points of one series that its axes can show."""

    def __init__(self, entry: Mapping[str, Any], panel: Mapping[str, Any]):
        self.label, self.style = str(entry["label"]), entry.get("style", "line")
        self.legend = "\n".join(textwrap.wrap(self.label, LABEL)) or " "
        columns = [_numbers(entry.get(key) or entry["y"]) for key in ("x", "y", "low", "high")]
        shown = np.isfinite(columns[0]) & np.isfinite(columns[1])
        for column, scale in zip(columns, ("x_scale", "y_scale"), strict=False):
            if panel.get(scale) == "log":
                shown &= column > 0
        self.x, self.y, low, high = (column[shown] for column in columns)
        self.low = np.where(np.isfinite(low), np.minimum(low, self.y), self.y)
        self.high = np.where(np.isfinite(high), np.maximum(high, self.y), self.y)
        if panel.get("y_scale") == "log":  # a bar that reaches zero is cut at a third of its point
            self.low = np.where(self.low > 0, self.low, self.y / 3)
        self.spread = entry.get("low") is not None and entry.get("high") is not None


def _numbers(values) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _plot(axes: Axes, series: list[_Curve]) -> list[tuple[_Curve, Any]]:
    """Draws the curves that have points; a dashed one shares the colour of its namesake."""
    drawn, colours, looks = [], {}, itertools.count()
    dashes = itertools.cycle(DASHES)
    for curve in (curve for curve in series if len(curve.x)):
        family = next((known for known in colours if curve.label.startswith(f"{known},")), None)
        number = colours[family] if family is not None else next(looks) % len(PALETTE)
        colours.setdefault(curve.label, number)
        colour, marker = PALETTE[number], MARKERS[number]
        if curve.style == "points":
            bars = (curve.y - curve.low, curve.high - curve.y)
            handle = axes.errorbar(curve.x, curve.y, bars if curve.spread else None, color=colour,
                                   fmt=marker, capsize=3, elinewidth=1.3, zorder=3)  # fmt: skip
        elif curve.style == "dashed":
            [handle] = axes.plot(curve.x, curve.y, color=colour, linestyle=next(dashes), lw=1.5)
        else:
            marker = marker if len(curve.x) <= MANY_POINTS else ""
            [handle] = axes.plot(curve.x, curve.y, color=colour, marker=marker)
            if curve.spread:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, lw=0)
        drawn.append((curve, handle))
    return drawn


def _scale(axes: Axes, panel: Mapping[str, Any], series: list[_Curve]) -> None:
    """Scales, and ticks in plain numbers: the widths measured, or 1, 10, 100."""
    xs = np.concatenate([curve.x for curve in series] or [np.zeros(0)])
    ys = np.concatenate([end for curve in series for end in (curve.low, curve.high)]
                        or [np.zeros(0)])  # fmt: skip
    for axis, name, values in ((axes.xaxis, "x", xs), (axes.yaxis, "y", ys)):
        log = panel.get(f"{name}_scale") == "log" and len(values) > 0
        axes.set(**{f"{name}scale": "log" if log else "linear"})
        if name == "x" and panel["x_label"] == "width" and len(values):
            axis.set_major_locator(FixedLocator(_apart(np.unique(values), log)))
        elif log:
            few = values.max() / values.min() < 30
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=7))
        else:
            whole = bool((values % 1 == 0).all())
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=whole))
        axis.set_minor_locator(NullLocator())
        if log:
            axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        else:
            digits = ScalarFormatter()
            digits.set_scientific(False)
            axis.set_major_formatter(digits)
        if log and name == "y":
            axes.set_ylim(values.min() / 1.25, values.max() * 1.25)


def _apart(widths: np.ndarray, log: bool) -> list[float]:
    """The widths whose labels have room beside each other."""
    if len(widths) < 2:
        return widths.tolist()
    places = np.log(widths) if log else widths
    room = (places[-1] - places[0]) / 9
    kept: list[int] = []
    for number in range(len(widths) - 1, -1, -1):
        if not kept or places[kept[-1]] - places[number] >= room:
            kept.append(number)
    return [float(widths[number]) for number in reversed(kept)]


def _plain(value: float) -> str:
    """A tick in plain digits; powers of ten only where the digits would not fit."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:.6f}".rstrip("0").rstrip(".").replace("-", "−")
    return f"{value:.0e}".replace("e-0", "e−").replace("e+0", "e").replace("-", "−")


def _inline(svg: str, name: str, title: str) -> str:
    """matplotlib's file as an element of a page: unique ids, the page's font and colours."""
    svg = re.sub(
        r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", svg[svg.index("<svg") :],
        flags=re.DOTALL,
    )  # fmt: skip
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"font: (?:(bold|\d{3}) )?([\d.]+px)[^;\"]*", _font, svg)  # before 3.11
    svg = svg.replace("#000000", "currentColor").replace("#ffffff", "none")
    for number, colour in enumerate(PALETTE, start=1):
        svg = svg.replace(colour, f"var(--curve-{number}, {colour})")
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    label = html.escape(title, quote=True)
    return f'<svg {box[0] if box else ""} role="img" aria-label="{label}">{rest.strip()}'


def _font(found: re.Match) -> str:
    return f"font-size: {found[2]}" + ("; font-weight: 600" if found[1] else "")
