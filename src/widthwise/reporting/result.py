"""What a report tells, as plain values: it goes to JSON and comes back."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1  # raised whenever a page could no longer be rendered from an older file

_FINDING = ("instrument", "title", "sentence", "table", "panels")
_PANEL = ("title", "x_label", "y_label", "series", "x_scale", "y_scale")


@dataclasses.dataclass(frozen=True)
class Result:
    """Everything that a page shows; the page is rendered from its JSON alone.

    >>> from widthwise.reporting import Result
    >>> result = Result(title="A title", headline=("A verdict.",), network="Dense() >> Readout()")
    >>> Result.from_json(result.to_json()) == result
    True

    Args:
        title: of the page.
        headline: the verdict, one sentence or two for each family.
        network: the network as it prints.
        data: name, task, n_train, n_test, n_features, n_outputs, notes.
        settings: name, value, default (text) and chosen (whether it differs from the default).
        findings: as `Finding.to_json()` gives them.
        open_cells: member and sentence: what could not be computed, and why.
        baseline: name, score and seconds of the method outside the table, if there is one.
        sources: key, citation and used (the places in it).
        versions: of Python and the libraries.
        seed: of the split and the batches; None where it was not recorded.
        seconds: for each family, and in all.
        warnings: notes of limits and data.
        command: what gives the same result on a command line; empty where none does.
    """

    title: str
    headline: tuple[str, ...]
    network: str
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    findings: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    open_cells: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    baseline: dict[str, Any] | None = None
    sources: list[dict[str, str]] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    seconds: dict[str, float | None] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for strict JSON: what is not finite becomes None."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"format": FORMAT} | plain(fields)

    def to_text(self) -> str:
        """The JSON file's content."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, found: Any) -> "Result":
        """The result that `to_json` wrote; ValueError for another format or missing parts."""
        if not isinstance(found, dict) or "format" not in found:
            raise ValueError("This JSON is not a result of widthwise: it has no format.")
        if found["format"] != FORMAT:
            raise ValueError(
                f"The result has format {found['format']!r}; this version reads {FORMAT}: "
                "make it again, or render it with the version that wrote it."
            )
        names = tuple(f.name for f in dataclasses.fields(cls))
        _need(found, names, "The result")
        for finding in found["findings"]:
            _need(finding, _FINDING, "A finding of the result")
            _need(finding["table"], ("columns", "rows"), "A table of the result")
            for panel in finding["panels"]:
                _need(panel, _PANEL, "A figure of the result")
        fields: dict[str, Any] = {name: found[name] for name in names}
        fields["headline"] = tuple(fields["headline"])
        return cls(**fields)


def load(path: str | os.PathLike) -> Result:
    """Reads a result.json; ValueError in one sentence if it is missing, cut off or another thing.

    >>> load("widthwise-report/result.json").title  # doctest: +SKIP
    'One network at every width, on digits'
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text, hence no result.json.") from None
    try:
        found = json.loads(text, parse_constant=_refuse)
    except ValueError:
        raise ValueError(f"{path} is cut off or damaged: write the report again.") from None
    return Result.from_json(found)


def plain(value: Any) -> Any:
    """Lists, dicts, strings and finite numbers only; NaN and the infinities become None.

    >>> plain({"gap": (0.5, float("nan"))})
    {'gap': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if callable(listed := getattr(value, "tolist", None)):  # NumPy's scalars and arrays
        return plain(listed())
    raise TypeError(f"A result holds plain values; {value!r} ({type(value).__name__}) is none.")


def _need(found: Any, names: tuple[str, ...], what: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{what} is {type(found).__name__}, not an object: make it again.")
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}: make it again.")


def _refuse(token: str):
    raise ValueError(f"{token} is not JSON")
