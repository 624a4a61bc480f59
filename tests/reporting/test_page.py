"""The page, from a stored result.json: no run, no JAX, headings and numbers rather than pixels."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from widthwise.reporting import Result, load, render
from widthwise.reporting.render import layers, show, table

STORED = Path(__file__).with_name("result.json")
HOSTILE = "<script>alert('x')</script>\"'& $x_1$ _y {{ 7 * 7 }} id=\"a\" url(#b)"
VOID = {"meta", "link", "img", "br", "hr", "input"}
LOADS = {"src", "srcset", "poster", "data", "action", "background", "xlink:href"}


class Reader(HTMLParser):
    """What a browser would see: tags with attributes, text outside of style, balance."""

    def __init__(self, page: str):
        HTMLParser.__init__(self)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(STORED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page() -> str:
    return render(load(STORED))


@pytest.fixture(scope="module")
def seen(page) -> Reader:
    return Reader(page)


def rendered(stored: dict, **changes) -> str:
    return render(Result.from_json(stored | changes))


def few(stored: dict) -> dict:
    """The stored result with one finding of one panel, quick to draw."""
    small = copy.deepcopy(stored)
    small["findings"] = small["findings"][:1]
    small["findings"][0]["panels"] = small["findings"][0]["panels"][:1]
    return small


def test_tags_balance_and_nothing_is_left_of_the_template(page, seen):
    assert page.startswith("<!DOCTYPE html>\n") and seen.open == []
    assert "{{" not in seen.text and "{%" not in seen.text


def test_sections_stand_in_their_order(seen, stored):
    titles = [f["title"] for f in stored["findings"] if f["instrument"] != "Agreement"]
    wanted = [stored["title"], *stored["headline"], "Dense()", "All members side by side", *titles,
              "Notes", "Data", "Seed and versions", "Time spent", "Settings", "Chosen",
              "Left at their defaults", "How to reproduce it", "Sources"]  # fmt: skip
    place = 0
    for words in wanted:
        place = seen.text.index(words, place)


def test_what_was_measured_stands_on_the_page(seen, stored):
    for finding in stored["findings"]:
        assert finding["sentence"] in seen.text
        for panel in finding["panels"]:
            assert panel["title"] in seen.text
            assert all(curve["label"] in seen.text for curve in panel["series"])
        assert all(column in seen.text for column in finding["table"]["columns"])
    for words in ("0.9844", "0.0231", "0.0879", "31.6", "−0.0300", "1347", "classification"):
        assert words in seen.text, words
    for part in ("sources", "settings", "warnings"):
        assert stored[part]
    for entry in stored["sources"]:
        assert all(part in seen.text for part in entry["citation"].rstrip(".").split(" arXiv:"))
    assert all(row["value"] in seen.text for row in stored["settings"])
    assert all(f"{name} {version}" in seen.text for name, version in stored["versions"].items())
    assert stored["command"] in seen.text and stored["warnings"][0] in seen.text


def test_chosen_settings_stand_apart(seen):
    chosen = seen.text[seen.text.index("Chosen") : seen.text.index("Left at their defaults")]
    assert "seeds 8 instead of 4" in chosen and "tolerance" not in chosen


def test_open_cell_keeps_its_row_and_says_why(page, stored):
    [cell] = stored["open_cells"]
    row = re.search(r'<tr class="open">(.*?)</tr>', page)
    assert row and "MuP, GradientDescent" in row[1] and "∞" in row[1]
    assert "<b>open</b>" in row[1] and cell["sentence"] in row[1]


def test_open_cell_outside_the_table_is_listed(stored):
    small = few(stored)
    assert "is <b>open</b>: The limit of gradient" in rendered(small), "without the table"
    agreement = stored["findings"][-1] | {"panels": []}
    other = {"member": "MuP, Adam, width 8", "sentence": "Not yet."}
    found = rendered(stored, findings=[agreement], open_cells=[other])
    assert "MuP, Adam, width 8 is <b>open</b>: Not yet." in found


def test_baseline_and_best_member_are_marked(page):
    assert re.search(r'<tr class="baseline"><td>RBF support vector machine</td>', page)
    best = re.search(r'<tr class="best">(.*?)</tr>', page)
    assert best and "NTK, Posterior" in best[1] and "0.9844" in best[1]


def test_page_asks_nobody_for_anything(page, seen):
    asking = {"script", "link", "img", "iframe", "object", "embed", "image", "video", "audio"}
    assert not {tag for tag, _ in seen.tags} & asking
    for tag, attributes in seen.tags:
        assert not LOADS & set(attributes), tag
        if "href" in attributes and tag != "a":
            assert (attributes["href"] or "").startswith("#"), tag
    assert "@import" not in page and "@font-face" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert set(re.findall(r"https?://[^\s\"'<]+?/", page)) == {"https://arxiv.org/"}


def test_every_id_is_unique_and_every_reference_is_met(page, seen):
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
    used = re.findall(r"url\(#([^)]*)\)", page) + re.findall(r' href="#([^"]*)"', page)
    assert used and set(used) <= set(ids)


def test_same_page_from_the_result_and_from_its_json(stored, page, tmp_path):
    result = load(STORED)
    again = tmp_path / "again.json"
    again.write_text(result.to_text(), encoding="utf-8")
    assert render(load(again)) == page
    assert again.read_text(encoding="utf-8") == STORED.read_text(encoding="utf-8")


def test_hostile_words_stay_words(stored):
    small = few(stored)
    finding = small["findings"][0]
    finding["table"]["columns"][0] = finding["title"] = finding["sentence"] = HOSTILE
    finding["table"]["rows"][0][0] = HOSTILE
    panel = finding["panels"][0]
    panel |= {"title": HOSTILE, "x_label": HOSTILE, "y_label": HOSTILE}
    panel["series"][0]["label"] = HOSTILE
    found = rendered(
        small, title=HOSTILE, headline=[HOSTILE], network=HOSTILE, warnings=[HOSTILE],
        command=HOSTILE, data={"name": HOSTILE, "notes": [HOSTILE]}, seconds={HOSTILE: 1.0},
        sources=[{"key": HOSTILE, "citation": HOSTILE}], versions={HOSTILE: HOSTILE},
        open_cells=[{"member": HOSTILE, "sentence": HOSTILE}],
        settings=[{"name": HOSTILE, "value": HOSTILE, "default": HOSTILE, "chosen": True}],
    )  # fmt: skip
    seen = Reader(found)
    assert "script" not in {tag for tag, _ in seen.tags} and seen.open == []
    assert "<script" not in found and "{{ 7 * 7 }}" in seen.text
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_missing_and_unfinished_numbers_are_dashes(stored):
    small = few(stored)
    row = small["findings"][0]["table"]["rows"][0]
    row[1:] = [None] * (len(row) - 1)
    small["seconds"] = {"all": None}
    found = Reader(rendered(small, seed=None, baseline=None))
    assert "64 – – –" in found.text and "all –" in found.text and "seed not recorded" in found.text
    assert not re.search(r"\b(nan|inf|None)\b", found.text)


def test_a_result_of_nothing_but_its_title_has_a_page():
    seen = Reader(render(Result("Title", ("Verdict.",), "Dense() >> Readout()")))
    assert "Title Title Verdict. Dense() >> Readout()" in seen.text and "Sources" not in seen.text


def test_columns_share_their_decimals():
    made = table(("name", "x", "n"), [("a", 12.3456, 64), ("b", 0.5, 1024), ("c", None, None)])
    assert [row["cells"] for row in made["rows"]] == [
        ["a", "12.3", "64"], ["b", "0.5", "1024"], ["c", "–", "–"],
    ]  # fmt: skip
    assert made["numeric"] == [False, True, True]
    wide = table(("x",), [(1e-7,), (-20.0,)])
    assert [row["cells"] for row in wide["rows"]] == [["1e−07"], ["−20"]]
    assert show(True) == "True" and show(float("nan")) == "–" and show("text") == "text"


def test_layers_of_a_printed_network():
    assert layers("Dense() >> (Relu() >> Dense() + Identity()) >> Readout()") == [
        "Dense()", "(Relu() >> Dense() + Identity())", "Readout()",
    ]  # fmt: skip
