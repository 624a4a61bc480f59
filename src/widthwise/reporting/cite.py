"""Sources to citations: "bibkey, equation; bibkey, equation" against the bibliography."""

import functools
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# A wheel carries the bibliography beside this file; an editable install reads the repository's.
_PLACES = (
    Path(__file__).with_name("refs.bib"),
    Path(__file__).parents[3] / "docs" / "refs.bib",
)
_ENTRY = re.compile(r"^@\w+\{\s*([^,\s]+)\s*,(.*?)^\}", re.MULTILINE | re.DOTALL)
_BRACES = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"  # nested two deep, as our own file is
_FIELD = re.compile(rf"(\w+)\s*=\s*(?:{_BRACES}|(\d+))")
_ACCENT = re.compile(r"\{?\\(['`^\"~=.uvHck])\s*\{?\\?([A-Za-z])\}?\}?")
_MARKS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304",
    ".": "\u0307", "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328",
}  # fmt: skip
_LETTERS = {r"\o": "ø", r"\O": "Ø", r"\l": "ł", r"\L": "Ł", r"\ss": "ß", r"\ae": "æ", r"\&": "&"}
_MANY = 6  # authors that are all named


class Citation(NamedTuple):
    """One entry of the bibliography, and the place in it that a rule uses."""

    key: str
    text: str
    where: str


def cite(source: str) -> tuple[Citation, ...]:
    """The citations of a rule's `source`.

    >>> [found] = cite("jacot2018, Theorem 1")
    >>> print(found.text)
    A. Jacot, F. Gabriel and C. Hongler (2018). Neural Tangent Kernel: Convergence and ...
    >>> found.where
    'Theorem 1'

    Raises ValueError for a key that the bibliography lacks.
    """
    known = bibliography()
    found = []
    for part in filter(None, (part.strip() for part in source.split(";"))):
        key, _, where = part.partition(",")
        if key not in known:
            raise ValueError(f"The source {source!r} names {key!r}, which docs/refs.bib lacks.")
        found.append(Citation(key, text_of(known[key]), where.strip()))
    return tuple(found)


@functools.cache
def bibliography() -> dict[str, dict[str, str]]:
    """Key -> fields of every entry of refs.bib."""
    path = next((place for place in _PLACES if place.exists()), None)
    if path is None:
        raise FileNotFoundError("widthwise is installed without its refs.bib: install it again.")
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, dict[str, str]]:
    """Key -> fields of BibTeX in which every entry ends with a brace at the start of a line.

    >>> parse("@misc{a2020,\\n  title = {The {ELU}},\\n  year = 2020,\\n}")
    {'a2020': {'title': 'The ELU', 'year': '2020'}}
    """
    entries = {}
    for key, body in _ENTRY.findall(text):
        if key in entries:
            raise ValueError(f"refs.bib has two entries {key!r}: keep one.")
        fields = _FIELD.findall(body)
        entries[key] = {name.lower(): _untex(braced or bare) for name, braced, bare in fields}
    return entries


def text_of(entry: dict[str, str]) -> str:
    """A readable citation: authors (year). Title. Where. arXiv number."""
    where = entry.get("journal") or entry.get("booktitle") or entry.get("publisher", "")
    if volume := entry.get("volume"):
        where += f" {volume}" + (f"({entry['number']})" if "number" in entry else "")
    if pages := entry.get("pages"):
        where += f", {pages}"
    preprint = f"arXiv:{entry['eprint']}" if "eprint" in entry else ""
    first = f"{_people(entry.get('author', ''))} ({entry['year']})"
    return " ".join(f"{part.rstrip('.')}." for part in (first, entry["title"], where, preprint)
                    if part)  # fmt: skip


def _people(field: str) -> str:
    names = [_person(name) for name in re.split(r"\s+and\s+", field)]
    if len(names) > _MANY:
        return f"{names[0]} et al."
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _person(name: str) -> str:
    family, _, given = name.partition(", ")
    initials = [
        "-".join(f"{half[0]}." for half in part.split("-") if half) for part in given.split()
    ]
    return " ".join((*initials, family))


def _untex(text: str) -> str:
    text = _ACCENT.sub(lambda m: unicodedata.normalize("NFC", m[2] + _MARKS[m[1]]), text)
    for command, letter in _LETTERS.items():
        text = re.sub(rf"\{{?{re.escape(command)}(?![A-Za-z])\s*\}}?", letter, text)
    text = re.sub(r"[{}]", "", text).replace("---", "—").replace("--", "–").replace("~", " ")
    return " ".join(text.split())


def listed(sources: Iterable[str]) -> list[dict[str, str]]:
    """The citations of these sources as a page lists them, each once."""
    found = dict.fromkeys(citation for source in sources for citation in cite(source))
    return [{"key": one.key, "citation": one.text, "used": one.where} for one in found]
