"""A report on disk: the page, and beside it the JSON that it was rendered from."""

import os
from pathlib import Path
from typing import Any

from widthwise.reporting.render import render
from widthwise.reporting.result import Result


def report(what: Any, path: str | os.PathLike) -> Path:
    """Writes a page and its JSON, each whole or not at all, and returns the page's path.

    >>> report(runs, "report.html")  # doctest: +SKIP
    PosixPath('report.html')

    Args:
        what: what `Family.train` returns, a list of that, or a `Result`.
        path: an .html file, or a folder for report.html and result.json. Beside x.html the JSON is
            x.json; beside report.html it is result.json.

    Raises ValueError where it cannot be written.
    """
    page = Path(path)
    if page.suffix.lower() != ".html":
        page = page / "report.html"
    name = "result.json" if page.name == "report.html" else f"{page.stem}.json"
    if not isinstance(what, Result):
        from widthwise.reporting.build import build  # the instruments, and with them JAX

        what = build(what)
    written = {page.with_name(name): what.to_text(), page: render(what)}
    from widthwise.store import write_whole

    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        for target, text in written.items():
            write_whole(target, text.encode())
    except OSError as error:
        raise ValueError(
            f"The report cannot be written to {path} ({error.strerror}): choose another place."
        ) from None
    return page
