"""Findings to a page: one self-contained HTML file, rendered from a JSON file beside it.

>>> from widthwise.reporting import load, render
>>> page = render(load("result.json"))  # doctest: +SKIP
"""

from widthwise.reporting.cite import Citation as Citation
from widthwise.reporting.cite import cite as cite
from widthwise.reporting.cite import listed as listed
from widthwise.reporting.render import render as render
from widthwise.reporting.result import Result as Result
from widthwise.reporting.result import load as load
from widthwise.reporting.write import report as report
