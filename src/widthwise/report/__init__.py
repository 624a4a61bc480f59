"""Findings to a page: one self-contained HTML file, rendered from a JSON file beside it.

>>> from widthwise.report import load, render
>>> page = render(load("result.json"))  # doctest: +SKIP
"""

import sys
from types import ModuleType
from typing import Any

from widthwise.report.cite import Citation as Citation
from widthwise.report.cite import cite as cite
from widthwise.report.render import render as render
from widthwise.report.result import Result as Result
from widthwise.report.result import load as load
from widthwise.report.write import write_report as write_report


class _Report(ModuleType):
    """This module, with a call: `ww.report(runs, "report.html")`."""

    def __call__(self, what: Any, path: Any):
        return write_report(what, path)


# `ww.report` has two readers: the flow `data -> runs -> report`, where it is a verb, and imports,
# where it is this package. A module answers to a call once its class has one (Python data model,
# "Customizing module attribute access"); nothing else of the module changes.
sys.modules[__name__].__class__ = _Report
