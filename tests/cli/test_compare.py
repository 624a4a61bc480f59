"""`widthwise compare`: a report, the same again from finished members, and after ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import pytest

from widthwise import family
from widthwise.reporting import load
from widthwise.run import Run

SIZE = ("--network", "Dense >> Relu >> Readout", "--widths", "8,inf", "--seeds", "2")
DESCENT = (*SIZE, "--learner", "GradientDescent(steps=5)")
SMALL = (*DESCENT, "--projection", "0")
MEMBERS = 2 + 3 + 3 + 2  # NTK; its limit, from each start too; MuP and its limit; the two ends


def strict(text: str):
    """JSON without the NaN and Infinity that Python would let pass."""

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_report_then_resumed_then_other_settings(call, houses, tmp_path):
    first = call("compare", houses, "--target", "price", *SMALL)
    assert (first.code, first.err) == (0, "")
    assert "Data 'houses.csv': 48 training and 12 test rows, 4 features, 1 output." in first.out
    assert "Under NTK scaling" in first.out and "Resumed" not in first.out
    assert first.out.rstrip().split("\n")[-1].startswith("Report: widthwise-report/report.html")
    out = tmp_path / "widthwise-report"
    assert {path.name for path in out.iterdir()} == {"report.html", "result.json", "runs"}
    result = load(out / "result.json")
    assert all(sentence in first.out for sentence in result.headline)
    kept = {path.name: path.read_bytes() for path in (out / "runs").iterdir()}
    assert len(kept) == MEMBERS and all(name.endswith(".run") for name in kept)

    again = call("compare", houses, "--target", "price", *SMALL)
    assert again.code == 0
    assert f"Resumed: {MEMBERS} of {MEMBERS} members were read from" in again.out
    assert load(out / "result.json").headline == result.headline

    other = call("compare", houses, "--target", "price", *SIZE, "--learner", "GradientFlow")
    assert other.code == 0 and "Resumed: 2 of 2" in other.out  # the two ends are the same members
    assert {
        path.name: path.read_bytes() for path in (out / "runs").iterdir()
    }.items() >= kept.items()


def test_json_of_classes_and_nothing_else(call, houses, tmp_path):
    words = ("--target", "town", "--scalings", "NTK", *SMALL, "--out", "deep/inside")
    said = call("compare", houses, *words, "--json")
    assert (said.code, said.err) == (0, "")
    found = strict(said.out)
    assert found["data"]["task"] == "classification" and found["data"]["n_outputs"] == 2
    assert found == strict((tmp_path / "deep/inside/result.json").read_text())


def test_spec_file_and_options_over_it(call, houses, tmp_path):
    (tmp_path / "study.toml").write_text(
        """
        data = "houses.csv"
        target = "price"
        network = "dense >> RELU >> Dense >> relu >> readout"
        scalings = ["ntk", "NTK"]
        learner = {name = "gradientdescent", steps = 5}
        widths = [8, 8.0, inf, "inf"]
        seeds = 3
        tolerance = 0.5
        """
    )
    said = call("compare", "--spec", "study.toml", "--seeds", "2", "--json")
    assert (said.code, said.err) == (0, "")
    rows = {row["name"]: row["value"] for row in strict(said.out)["settings"] if row["chosen"]}
    assert rows["widths"] == "8, ∞" and rows["seeds"] == "2" and rows["tolerance"] == "0.5"
    assert rows["scalings"] == "NTK()" and "steps=5" in rows["learner"]


def test_learner_of_infinite_width_leaves_finite_widths_open(call, houses):
    said = call("compare", houses, "--widths", "8,inf", "--learner", "GradientFlow", "--json")
    assert said.code == 0
    assert {"GradientFlow"} <= {
        cell["sentence"].split()[0] for cell in strict(said.out)["open_cells"]
    }


@pytest.mark.parametrize("members", [0, 3])
def test_interruption_keeps_what_is_finished(call, houses, tmp_path, monkeypatch, members):
    put, finished = family.Shelf.put, []

    def interrupted(self, name, run):
        if len(finished) == members:
            raise KeyboardInterrupt
        finished.append(name)
        put(self, name, run)

    monkeypatch.setattr(family.Shelf, "put", interrupted)
    said = call("compare", houses, *SMALL, "--out", "out")
    assert said.code == 130
    if members == 0:
        assert said.err == "widthwise: Interrupted: nothing was written.\n"
        assert not (tmp_path / "out").exists()
        return
    assert said.err == (
        "widthwise: Interrupted: 3 more members are finished and kept in out/runs; the same "
        "command resumes.\n"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["runs"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    said = call("compare", houses, *SMALL, "--out", "out")
    assert said.code == 0 and f"Resumed: 3 of {MEMBERS} members" in said.out


@pytest.mark.slow
def test_signal_in_a_process_of_its_own(call, houses, tmp_path):
    words = ["compare", str(houses), *SMALL, "--out", "out"]
    # it waits for the signal once a member is kept: on a busy machine it would be done before
    waiting = (
        # a shell's background jobs inherit that SIGINT is ignored
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from widthwise.cli import main; from widthwise.shelf import Shelf; "
        "put = Shelf.put; Shelf.put = lambda *all: (put(*all), time.sleep(60)); main()"
    )
    start = [sys.executable, "-c", waiting, *words]
    process = subprocess.Popen(
        start, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    runs = tmp_path / "out" / "runs"
    for _ in range(1200):
        if runs.is_dir() and any(runs.glob("*.run")) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("widthwise: Interrupted: ") and err.count("\n") == 1
    kept = list(runs.iterdir())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["runs"]
    assert kept and all(isinstance(Run.load(path), Run) for path in kept)

    said = call(*words)
    assert said.code == 0 and f"Resumed: {len(kept)} of {MEMBERS} members" in said.out


def test_bar_is_on_standard_error_of_a_terminal(call, houses, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    said = call("compare", houses, "--scalings", "NTK", *SMALL, "--json")
    assert said.code == 0 and strict(said.out)
    assert "NTK" in said.err


@pytest.mark.slow
def test_projected_family_has_a_limit(call, houses):
    words = ("--scalings", "MuP", *DESCENT, "--projection", "8", "--out", "out")
    said = call("compare", houses, *words)
    assert said.code == 0 and "projected onto 8" in said.out and "PiLimit" in said.out
