"""Citations of every source that the library names."""

import ast
import re
from pathlib import Path

import pytest

import widthwise
from widthwise.reporting import cite
from widthwise.reporting.cite import bibliography, parse, text_of

HOME = Path(widthwise.__file__).parent


def named_sources() -> set[str]:
    """Every `source` that a class in the package states."""
    found = set()
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "source":
                if isinstance(node.value, ast.Constant) and node.value.value:
                    found.add(str(node.value.value))
    return found


@pytest.mark.parametrize("source", sorted(named_sources()))
def test_every_source_has_its_citations(source):
    found = cite(source)
    assert found and all(citation.where for citation in found)
    for citation in found:
        assert re.search(r"[\w.] \(\d{4}\)\. \w", citation.text), citation.text
        assert citation.text.endswith(".") and not re.search(r"[{}\\~]|\.\.", citation.text)


def test_every_entry_can_be_cited():
    assert len(bibliography()) >= 15
    for key, entry in bibliography().items():
        assert {"author", "title", "year"} <= set(entry), key
        assert len(text_of(entry)) > 40


def test_citation_reads_well():
    [first, second] = cite("jacot2018, Proposition 1 and Theorem 1; louart2018, Table 1")
    assert first.where == "Proposition 1 and Theorem 1" and second.key == "louart2018"
    assert first.text == (
        "A. Jacot, F. Gabriel and C. Hongler (2018). Neural Tangent Kernel: Convergence and "
        "Generalization in Neural Networks. Advances in Neural Information Processing Systems 31. "
        "arXiv:1806.07572."
    )
    assert second.text == (
        "C. Louart, Z. Liao and R. Couillet (2018). A Random Matrix Approach to Neural Networks. "
        "The Annals of Applied Probability 28(2), 1190–1248. arXiv:1702.05419."
    )


def test_bibtex_of_all_sorts():
    text = """@article{a,
  author = {Sch{\\"o}lkopf, Bernhard and {\\O}stvold, Jean-Luc},
  title = {The {GELU} of {\\v{S}}},
  year = 2020,
}

@misc{b,
  author = {One, A. and Two, B. and Three, C. and Four, D. and Five, E. and Six, F. and Seven, G.},
  title = {Many}, year = {2021},
}
"""
    known = parse(text)
    assert text_of(known["a"]) == "B. Schölkopf and J.-L. Østvold (2020). The GELU of Š."
    assert text_of(known["b"]) == "A. One et al. (2021). Many."
    with pytest.raises(ValueError, match="two entries 'a'"):
        parse(text + text)


def test_unknown_key_is_named():
    with pytest.raises(ValueError, match="'nobody1900'"):
        cite("jacot2018, Theorem 1; nobody1900, eq. (1)")
