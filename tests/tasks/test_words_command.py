"""`widthwise words`, from words to files."""

import json
import subprocess
import sys

import numpy as np
import pytest

from widthwise.cli import main
from widthwise.tasks.words import Embeddings

QUESTIONS = """: capitals
w1 w2 w3 w4
w2 w3 w4 w5
w1 w3 w5 w7
: city-in-state
w10 w11 w12 w13
w14 w15 w16 w17
"""
WORDS = ("--widths", "8,16,inf", "--min-count", "5", "--seeds", "2", "--sample", "0.1")


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Runs `widthwise words` in a folder with a text and questions: exit code and both streams."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    numbers = np.minimum(rng.zipf(1.3, 20_000), 40)
    (tmp_path / "text.txt").write_text(" ".join(f"w{number}" for number in numbers))
    (tmp_path / "questions.txt").write_text(QUESTIONS)

    def run(*words):
        capsys.readouterr()
        code = 0
        try:
            main(["words", *map(str, words)])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_vectors_report_and_resumption(call, tmp_path):
    asked = ("text.txt", *WORDS, "--questions", "questions.txt", "--near", "w1,w2")
    code, out, err = call(*asked)
    assert (code, err) == (0, "")
    assert "Vocabulary: 40 words that occur" in out.splitlines()[0]
    assert "the words of 5 of 5 questions are known" in out
    for name in ("report.html", "result.json", "picture.svg"):
        assert (tmp_path / "widthwise-words" / name).stat().st_size > 1000
    page = (tmp_path / "widthwise-words" / "report.html").read_text()
    assert "Mikolov" in page and "Cities and states" in page and "w1" in page
    found = json.loads((tmp_path / "widthwise-words" / "result.json").read_text())
    by_title = {finding["title"]: finding for finding in found["findings"]}
    widths = by_title["Analogies"]["numbers"]["widths"]
    assert list(widths) == ["8", "16", "∞"] and widths["∞"]["mean"] == 0
    assert len(by_title["Cities and states"]["panels"]) == 3
    assert len(by_title["Trainings"]["table"]["rows"]) == 6
    [home] = [path for path in (tmp_path / "widthwise-words").iterdir() if len(path.name) == 12]
    names = {f"width-{n}-seed-{s}.{e}" for n in ("8", "16", "inf") for s in (0, 1)
             for e in ("npz", "bin", "json")}  # fmt: skip
    assert {path.name for path in home.iterdir()} == names
    assert Embeddings.load(home / "width-inf-seed-1.npz").vectors.shape == (40, 40)
    times = {path: path.stat().st_mtime_ns for path in home.iterdir()}
    code, again, _ = call(*asked)
    assert code == 0 and times == {path: path.stat().st_mtime_ns for path in home.iterdir()}
    assert again == out
    code, _, _ = call(*asked[:-2], "--epochs", "2")
    assert code == 0 and len(list((tmp_path / "widthwise-words").iterdir())) == 6


def test_json_and_nothing_else_without_questions(call):
    code, out, err = call("text.txt", "--widths", "8", "--seeds", "1", "--min-count", "5",
                          "--sample", "0.1", "--json")  # fmt: skip
    found = json.loads(out)
    assert (code, err) == (0, "") and [f["title"] for f in found["findings"]] == ["Trainings"]


@pytest.mark.parametrize(
    "words, match",
    [
        (["nowhere.txt"], "corpus nowhere.txt cannot be read: No such file"),
        (["text.txt", "--min-count", "100000"], "give a smaller minimum count"),
        (["text.txt", "--widths", ","], "widths is empty"),
        (["text.txt", "--widths", "64,wide"], "width 'wide' is neither"),
        (["text.txt", "--memory", "much"], "write for example 4GB"),
        (["text.txt", "--questions", "nowhere"], "questions nowhere cannot be read"),
        (["text.txt", "--near", "king"], "no word 'king'"),
        (["text.txt", "--seeds", "0"], "seeds of Study is 0"),
        (["text.txt", "--window", "0"], "window of BagOfWords is 0"),
        (["text.txt", "--threads", "0"], "threads of Threads is 0"),
        (["text.txt"], "fewer than the 1000 tokens of one sentence"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refusals(call, words, match):
    code, out, err = call(*words)
    assert code == 2 and match in err and err.count("\n") == 1, err


def test_help_is_light():
    code = "from widthwise.cli import main\nmain(['words', '--help'])\nimport sys\n"
    code += "print(*[x for x in ('jax', 'matplotlib', 'numba', 'numpy') if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "", done.stderr
