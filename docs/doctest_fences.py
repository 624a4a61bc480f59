"""For the documentation: examples in docstrings are shown as code, not as quoted text."""

import re
from typing import Any

import griffe

# A prompt at the start of a line, and all lines up to the next empty one.
EXAMPLE = re.compile(r"(?m)^( *)>>> .*(?:\n *\S.*)*")


def fenced(text: str) -> str:
    """The text with every doctest example in a fence of its own."""

    def fence(found: re.Match[str]) -> str:
        return f"{found[1]}```pycon\n{found[0]}\n{found[1]}```"

    return EXAMPLE.sub(fence, re.sub(r"  # doctest: \+\w+", "", text))


class DoctestFences(griffe.Extension):
    """Rewrites docstrings while the pages are built; the source stays as it is."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
