"""Results to JSON and back, and to disk."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

import widthwise
from widthwise.reporting import Result, load, report

STORED = Path(__file__).with_name("result.json")


def strict(text: str):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def refused(tmp_path, text: str) -> str:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load(path)
    said = str(caught.value)
    assert said.count(". ") == 0 and said.endswith("."), said
    return said


def test_what_is_not_finite_becomes_null():
    result = Result("T", ("V.",), "Dense()", seconds={"a": math.nan, "b": np.float64(0.5)},
                    data={"x": (np.inf, np.int64(3)), "y": np.array([1.0, np.nan])})  # fmt: skip
    found = strict(result.to_text())
    assert found["seconds"] == {"a": None, "b": 0.5}
    assert found["data"] == {"x": [None, 3], "y": [1.0, None]}


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(TypeError, match="object"):
        Result("T", ("V.",), "Dense()", data={"x": object()}).to_json()


def test_there_and_back(tmp_path):
    result = load(STORED)
    assert Result.from_json(result.to_json()) == result
    assert isinstance(result.headline, tuple)


def test_cut_off_file_is_refused(tmp_path):
    text = STORED.read_text(encoding="utf-8")
    for part in (text[: len(text) // 2], "", text.replace("0.9389", "NaN")):
        assert "cut off or damaged" in refused(tmp_path, part)


def test_other_format_or_thing_is_refused(tmp_path):
    stored = strict(STORED.read_text(encoding="utf-8"))
    assert "format 99" in refused(tmp_path, json.dumps(stored | {"format": 99}))
    assert "not a result" in refused(tmp_path, "[1, 2]")
    assert "not a result" in refused(tmp_path, '{"title": "T"}')


@pytest.mark.parametrize("name", ["title", "findings", "open_cells", "command"])
def test_missing_part_is_named(tmp_path, name):
    stored = strict(STORED.read_text(encoding="utf-8"))
    del stored[name]
    assert f"lacks {name}" in refused(tmp_path, json.dumps(stored))


def test_missing_part_of_a_finding_is_named(tmp_path):
    stored = strict(STORED.read_text(encoding="utf-8"))
    del stored["findings"][0]["panels"][0]["series"]
    assert "lacks series" in refused(tmp_path, json.dumps(stored))
    stored["findings"][0] = "text"
    assert "not an object" in refused(tmp_path, json.dumps(stored))


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load(tmp_path / "none.json")


@pytest.fixture(scope="module")
def small() -> Result:
    return Result("T", ("V.",), "Dense() >> Readout()")


@pytest.mark.parametrize(
    "path, page, beside",
    [
        ("out", "out/report.html", "out/result.json"),
        ("report.html", "report.html", "result.json"),
        ("deep/er/mine.HTML", "deep/er/mine.HTML", "deep/er/mine.json"),
    ],
)
def test_where_the_files_go(tmp_path, small, path, page, beside):
    assert report(small, tmp_path / path) == tmp_path / page
    assert load(tmp_path / beside) == small
    files = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {tmp_path / page, tmp_path / beside}


def test_the_verb_is_on_the_surface(tmp_path, small):
    page = widthwise.report(small, tmp_path / "a.html")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_what_cannot_be_written_is_one_sentence(tmp_path, small):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written to .*file.*choose another place\.$"):
        report(small, tmp_path / "file" / "x.html")
    if os.geteuid():  # root writes everywhere
        tmp_path.chmod(0o500)
        with pytest.raises(ValueError, match="Permission denied"):
            report(small, tmp_path / "x.html")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="str came"):
        report("text", tmp_path / "x.html")
