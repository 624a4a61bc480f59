"""The command line: parse, call, show. A command is a file here and one line below.

>>> main(["--version"])  # doctest: +SKIP
0.1.0
"""

from widthwise.cli import compare as compare
from widthwise.cli import fewshot as fewshot
from widthwise.cli import listing as listing
from widthwise.cli import member as member
from widthwise.cli import optimiser_gap as optimiser_gap
from widthwise.cli import words as words
from widthwise.cli.app import main as main
