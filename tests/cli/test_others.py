"""`fit`, `predict`, `list`, and help."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import widthwise
from widthwise.network.build import specify
from widthwise.spec import read_network

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = ("compare", "fewshot", "fit", "list", "predict", "words")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_numbers_go_round(call, houses, tmp_path):
    said = call("fit", houses, "--target", "price", "--train", "40", "--test", "20")
    assert (said.code, said.err) == (0, "")
    assert "test R2 0.9" in said.out and "on 20 rows; saved to model.widthwise" in said.out
    said = call("predict", houses)
    assert (said.code, said.err) == (0, "")
    rows, truth = table(said.out), table(houses.read_text())
    assert len(rows) == 60 and set(rows[0]) == {"prediction", "std"}
    gaps = [float(a["prediction"]) - float(b["price"]) for a, b in zip(rows, truth, strict=True)]
    assert np.sqrt(np.mean(np.square(gaps))) < 20  # of prices from 200 to 500
    assert 0 < float(rows[0]["std"]) < 50
    silent = call("predict", houses, "--out", "new/predicted.csv")
    assert silent == (0, "", "") and (tmp_path / "new/predicted.csv").read_text() == said.out
    found = json.loads(call("predict", houses, "--json").out)
    assert found["prediction"] == [float(row["prediction"]) for row in rows]


def test_classes_go_round_with_odd_names_at_finite_width(call, houses):
    houses.write_text(houses.read_text().replace("Ulm", '"Ulm, old ""town"""'))
    words = ("--learner", "GradientDescent(steps=60)", "--width", "16", "--out", "m", "--json")
    said = call("fit", houses, "--target", "town", *words)
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert found["model"] == "m" and found["test accuracy"] > 0.8
    rows = table(call("predict", houses, "--model", "m").out)
    truth = [row["town"] for row in table(houses.read_text())]
    assert np.mean([row["prediction"] == t for row, t in zip(rows, truth, strict=True)]) > 0.8
    assert set(rows[0]) == {"prediction", "p(Bonn)", 'p(Ulm, old "town")'}


def test_tiles_are_kept_and_used_again(call, houses, tmp_path):
    words = ("fit", houses, "--target", "price", "--learner", "Posterior(noise=0.01)")
    plain = call(*words)
    said = call(*words, "--store", "tiles", "--memory", "9MB")
    assert (said.code, said.err) == (0, "")
    assert "was held in float32" in said.out and "(" in plain.out
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiles" / "done").iterdir()}
    again = call(*words, "--store", "tiles", "--memory", "9MB")
    score = again.out.splitlines()[-1].split(";")[0]
    assert score == said.out.splitlines()[-1].split(";")[0]
    assert score == plain.out.splitlines()[-1].split(";")[0]
    assert done == {path: path.stat().st_mtime_ns for path in done}


def test_several_targets(call, houses):
    said = call("fit", houses, "--target", "price", "--target", "rooms")
    assert said.code == 0
    assert table(call("predict", houses).out)[0].keys() == {
        "prediction_0", "std_0", "prediction_1", "std_1",
    }  # fmt: skip


def test_list_has_every_kind(call):
    said = call("list")
    assert (said.code, said.err) == (0, "")
    found = json.loads(call("list", "--json").out)
    assert list(found) == ["layers", "scalings", "learners", "limits", "instruments", "data sets"]
    for kind, entries in found.items():
        assert f"{kind}\n" in said.out and entries
        for entry in entries:
            assert f"  {entry['name']}" in said.out and entry["what"]
    dense = next(entry for entry in found["layers"] if entry["name"] == "Dense")
    assert dense["settings"]["times"] == "1"


@pytest.mark.parametrize("name", ["dense", "Adam", "ABC", "NNGP", "digits"])
def test_list_describes_one(call, name):
    said = call("list", name)
    assert said.code == 0 and said.out.lower().startswith(name.lower())


def test_broken_pipe_is_silent(call):
    words = [sys.executable, "-c", "from widthwise.cli import main; main(['list'])"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_no_command_is_help(call):
    said = call()
    assert said == call("--help")
    assert said.code == 0 and all(command in said.out for command in COMMANDS)
    assert "Exit codes: 0 done; 2 bad input" in said.out and "130 interrupted" in said.out


def test_version(call):
    assert call("--version") == (0, f"{widthwise.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_every_option(call, command):
    said = call(command, "--help")
    assert (said.code, said.err) == (0, "")
    assert "For example" in said.out and f"\n  widthwise {command}" in said.out
    assert "--json" in said.out and "--no-json" not in said.out
    assert max(map(len, said.out.splitlines())) <= 80


def test_bugs_show_where_they_are(call, monkeypatch):
    monkeypatch.setattr("widthwise.catalogue.catalogue", lambda: np.zeros(2) + np.zeros(3))
    with pytest.raises(ValueError, match="broadcast"):
        call("list")


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_imports_nothing_heavy(words):
    heavy = ("jax", "numpy", "scipy", "sklearn", "matplotlib", "numba", "equinox")
    code = (
        f"import sys; from widthwise.cli import main\n"
        f"try: main({words!r})\n"
        f"finally: print(*(set({heavy!r}) & set(sys.modules)), file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr.strip()) == (0, "") and "Usage" in said.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_networks_of_digits(path):
    net = read_network(str(path))
    specify(net, 64, 10)
    assert net.refusal() is None
