"""A result to its page: one HTML file that asks nobody for anything."""

import functools
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from widthwise.reporting.result import Result

NONE = "–"
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def render(result: Result) -> str:
    """The page as HTML, the same for a result and for what its JSON reads back.

    >>> render(load("result.json"))[:15]  # doctest: +SKIP
    '<!DOCTYPE html>'
    """
    told = Result.from_json(result.to_json()).to_json()
    findings = [f for f in told["findings"] if f["instrument"] != "Agreement"]
    agreement = next((f for f in told["findings"] if f["instrument"] == "Agreement"), None)
    page = _template().render(
        result=told,
        css=files("widthwise.reporting").joinpath("page.css").read_text(encoding="utf-8"),
        agreement=_members(agreement, told) if agreement else None,
        findings=[_finding(f, number) for number, f in enumerate(findings, start=1)],
        chosen=[row for row in told["settings"] if row["chosen"]],
        usual=[row for row in told["settings"] if not row["chosen"]],
    )
    return page.rstrip() + "\n"


@functools.cache
def _template():
    from jinja2 import Environment, StrictUndefined, select_autoescape  # only where a page is made

    environment = Environment(
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"links": _links, "show": show, "layers": layers}
    text = files("widthwise.reporting").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def _finding(finding: dict[str, Any], number: int) -> dict[str, Any]:
    """A finding with its figures drawn and its numbers written."""
    from markupsafe import Markup

    from widthwise.reporting.figures import draw  # matplotlib: only where a page is made

    figures = [
        {"svg": Markup(draw(panel, f"f{number}-{place}")), "title": panel["title"],
         "table": table(("curve", panel["x_label"], panel["y_label"], "low", "high"),
                        _points(panel))}
        for place, panel in enumerate(finding["panels"], start=1)
    ]  # fmt: skip
    columns, rows = finding["table"]["columns"], finding["table"]["rows"]
    return finding | {"figures": figures, "table": table(columns, rows), "id": f"finding-{number}"}


def _points(panel: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for curve in panel["series"]:
        nothing = [None] * len(curve["x"])
        ends = (curve.get("low") or nothing, curve.get("high") or nothing)
        rows += [[curve["label"], *row]
                 for row in zip(curve["x"], curve["y"], *ends, strict=True)]  # fmt: skip
    return rows


def _members(finding: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The table of members; an open cell keeps its row and says why it is open."""
    shown = _finding(finding, 0)
    reasons = {cell["member"]: cell["sentence"] for cell in told["open_cells"]}
    baseline = (told["baseline"] or {}).get("name")
    best = (finding.get("numbers") or {}).get("best") or [None, None]
    for raw, row in zip(finding["table"]["rows"], shown["table"]["rows"], strict=True):
        missing = len(raw) > 2 and raw[2] is None
        row["open"] = reasons.pop(f"{raw[0]}, width {raw[1]}", "") if missing else ""
        row["kind"] = (
            "open" if missing else "best" if raw[:2] == best[:2]
            else "baseline" if raw[0] == baseline else ""
        )  # fmt: skip
    return shown | {"unlisted": [{"member": m, "sentence": s} for m, s in reasons.items()]}


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Cells as text, the numbers of a column with the same decimals, and which columns are numbers.

    >>> table(("width", "gap"), [(64, 0.25), (256, 0.125)])["rows"][0]["cells"]
    ['64', '0.2500']
    """
    told = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    written = [_column(cells) for cells in told]
    numeric = [bool(cells) and all(_is_number(cell) for cell in cells) for cells in told]
    lines = [{"cells": list(cells)} for cells in zip(*written, strict=True)]
    return {"columns": list(columns), "numeric": numeric, "rows": lines}


def _is_number(cell: Any) -> bool:
    return cell in (None, "∞", "") or isinstance(cell, int | float)


def _column(cells: Sequence[Any]) -> list[str]:
    sizes = [abs(x) for x in cells if isinstance(x, float) and math.isfinite(x) and x != 0]
    if not sizes or max(sizes) / min(sizes) > 1e4 or max(sizes) >= 1e6 or max(sizes) < 1e-3:
        return [show(cell) for cell in cells]
    if all(size % 1 == 0 for size in sizes):
        return [show(cell) for cell in cells]
    order = math.floor(math.log10(max(sizes)))
    decimals = max(0, 2 - order + (order == -1))  # three digits; four of what lies near one
    return [
        f"{cell:.{decimals}f}".replace("-", "−")
        if isinstance(cell, float) and math.isfinite(cell) else show(cell)
        for cell in cells
    ]  # fmt: skip


def show(value: Any) -> str:
    """One value as text: four digits of a number, a dash for None.

    >>> show(0.123456), show(None), show(-2)
    ('0.1235', '–', '−2')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (f"{value:d}" if isinstance(value, int) else f"{value:.4g}").replace("-", "−")


def layers(network: str) -> list[str]:
    """The layers of a printed chain, brackets kept together.

    >>> layers("Dense() >> (Identity() + Dense() >> Relu()) >> Readout()")
    ['Dense()', '(Identity() + Dense() >> Relu())', 'Readout()']
    """
    found, depth = [""], 0
    for part in re.split(r"( >> |[()\[\]])", network):
        depth += (part in ("(", "[")) - (part in (")", "]"))
        if part == " >> " and depth == 0:
            found.append("")
        else:
            found[-1] += part
    return [layer for layer in found if layer]


def _links(citation: str):
    """A citation, with its arXiv number as a link that nobody follows unasked."""
    from markupsafe import Markup, escape

    link = r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>'
    return Markup(_ARXIV.sub(link, str(escape(citation))))
