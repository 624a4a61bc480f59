"""Whatever a user gets wrong: one sentence on standard error, exit code 2, nothing half-written."""

import gzip
import io
import os
import re
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest

from widthwise import memory

pytestmark = pytest.mark.usefixtures("unchecked")

FAST = ("--seeds", "1", "--learner", "GradientDescent(steps=5)")
UNSTABLE = "ABC(a=(0,0,0), b=(0,0.5,0.5), c=(0,0,0))"
DIVERGING = "GradientDescent(steps=50, lr=1e6)"


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"a": np.arange(9.0), "y": np.arange(9.0)}).to_parquet(buffer)
    return buffer.getvalue()


GOOD = "a,b,y\n" + "".join(f"{i},{i * i % 7},{i * 1.5}\n" for i in range(12))
FILES = {
    "good.csv": GOOD,
    "cut.npz": npz(X=np.eye(9), y=np.arange(9))[:-200],
    "cut.csv.gz": gzip.compress(GOOD.encode() * 50)[:-20],
    "cut.parquet": parquet()[:-200],
    "cut.csv": GOOD + "5,6",
    "one.csv": "a,y\n1,u\n2,u\n3,u\n4,u\n",
    "nan.csv": "a,y\n1,nan\n2,nan\n3,nan\n4,1.5\n",
    "inf.csv": GOOD.replace("\n3,", "\ninf,"),
    "text.csv": GOOD.replace("\n3,", "\nthree,"),
    "none.csv": "a,b,y\n",
    "odd.npz": npz(pixels=np.ones((5, 2)), marks=np.ones(5)),
    "xy.npz": npz(X=np.random.default_rng(0).normal(size=(9, 2)), y=np.arange(9) + 0.5),
    "table.xlsx": "PK",
    "text.toml": "widths = [8,",
    "key.toml": "width = [8]",
    "seeds.toml": 'seeds = "many"',
    "bool.toml": "widths = true",
    "truth.toml": "widths = [true]",
    "scalings.toml": "scalings = [3]",
    "nameless.toml": "learner = {steps = 3}",
    "text_steps.toml": 'learner = {name = "Adam", steps = "few"}',
}  # fmt: skip
DATA = {
    "missing file": ("nowhere.csv", "No file or folder has the path 'nowhere.csv'"),
    "unknown data set": ("digts", "no data set called 'digts': did you mean digits"),
    "unknown ending": ("table.xlsx", "give a file in .csv"),
    "cut npz": ("cut.npz", "cut off"),
    "cut gz": ("cut.csv.gz", "cut off"),
    "cut parquet": ("cut.parquet", "cut off"),
    "cut csv": ("cut.csv", "row 13 of the data"),
    "wrong target": ("good.csv --target yy", "no column 'yy'.*did you mean y"),
    "one class": ("one.csv", "only one class, 'u'"),
    "NaN target": ("nan.csv", "has values in 1 row"),
    "inf feature": ("inf.csv", "'a' is infinite in row"),
    "text in numbers": ("text.csv", "'a' has 'three' in row 4"),
    "zero rows": ("none.csv", "give at least two rows"),
    "odd npz": ("odd.npz", "has the arrays pixels, marks"),
    "npz target": ("xy.npz --target z", "target is 'z'.*leave target out"),
    "train too large": ("good.csv --train 13", "ask for at most 12 together"),
    "train zero": ("good.csv --train 0", "train is 0"),
    "unknown task": ("good.csv --task ranking", "choose 'classification' or 'regression'"),
    "negative seed": ("good.csv --seed -1", "seed .*-1"),
    "empty openml": ("openml:", "give its name or number"),
}
NETWORKS = {
    "unknown layer": ("Dense >> Rellu >> Readout", "no layer called 'Rellu': did you mean Relu"),
    "no readout": ("Dense >> Relu", "add `>> Readout"),
    "two readouts": ("Dense >> Readout >> Readout", "one readout, its last layer"),
    "nonlinearity first": ("Relu >> Dense >> Readout", "put Dense\\(\\) in front of it"),
    "negative variance": ("Dense(weight_variance=-1) >> Readout", "weight_variance of Dense is -1"),
    "no number": ("Dense(weight_variance=two) >> Readout", "'two', which is no number"),
    "setting of a layer": ("Dense(time=2) >> Readout", "no setting 'time': did you mean times"),
    "settings without names": ("Dense(2) >> Readout", "'Dense\\(2\\)': write layers with named"),
    "no composition": ("Dense | Relu", "composed with >> and"),
    "no network": ("Dense >>", "cannot be read"),
    "code": ("__import__('os') >> Readout", "no layer"),
}
SETTINGS = {
    "width 0": ("--widths 0", "'0' is not positive"),
    "width -3": ("--widths -3", "'-3' is not positive"),
    "width 1.5": ("--widths 8,1.5", "'1.5' is neither a whole number nor inf"),
    "width abc": ("--widths abc", "'abc' is neither"),
    "width nan": ("--widths nan", "'nan' is neither"),
    "no widths": ("--widths=", "widths is empty"),
    "no scalings": ("--scalings=", "scalings is empty"),
    "unknown scaling": ("--scalings MuPP", "no scaling called 'MuPP': did you mean MuP"),
    "richness": ("--scalings Richness(r=2)", "r is 2"),
    "exponents missing": ("--scalings ABC(a=(0,0,0))", "ABC needs b, c"),
    "unstable": (("--scalings", UNSTABLE), "has no limit: it is unstable"),
    "unknown learner": ("--learner SGD", "no learner called 'SGD': known are GradientDescent"),
    "setting of a learner": ("--learner Adam(stepz=3)", "no setting 'stepz': did you mean steps"),
    "part of a step": ("--learner Adam(steps=1.5)", "steps of Adam is 1.5"),
    "text for a number": ("--learner Posterior(noise=loud)", "noise of Posterior is 'loud'"),
    "negative noise": ("--learner Posterior(noise=-1)", "noise of Posterior is -1"),
    "unknown loss": ("--learner Adam(loss=hinge)", "choose 'mse' or 'cross_entropy'"),
    "loss of classes": ("--learner Adam(loss=cross_entropy)", "the target is a number"),
    "no learner": ("--learner 3", "write for example Adam"),
    "sum as a setting": ("--learner Adam(lr=1/2)", "'1 / 2' cannot be read"),
    "seeds 0": ("--seeds 0", "seeds of Comparison is 0"),
    "seeds many": ("--seeds many", "'many' is no whole number"),
    "seeds 1.5": ("--seeds 1.5", "'1.5' is no whole number"),
    "negative tolerance": ("--tolerance -1", "tolerance of Comparison is -1"),
    "NaN tolerance": ("--tolerance nan", "tolerance of Comparison is nan"),
    "no such spec": ("--spec nowhere.toml", "cannot be read: No such file"),
    "no TOML": ("--spec text.toml", "is not TOML"),
    "key of a spec": ("--spec key.toml", "no setting 'width': did you mean widths"),
    "type in a spec": ("--spec seeds.toml", "sets seeds to 'many': give a whole number"),
    "truth in a spec": ("--spec bool.toml", "sets widths to True: give a list"),
    "truth in a list": ("--spec truth.toml", "width True is neither"),
    "number as a name": ("--spec scalings.toml", "scaling 3 cannot be read"),
    "no name": ("--spec nameless.toml", "has no name"),
    "type in a table": ("--spec text_steps.toml", "steps of Adam is 'few'"),
    "unknown option": ("--wdths 8", '--wdths"?; did you mean "?--widths'),
    "option without value": ("--widths", '--widths"? requires an argument'),
    "option twice": ("--seeds 1 --seeds 2", '--seeds"? specified multiple times'),
    "too many words": ("another.csv", "belong to no option: \\['another.csv'\\]"),
}


@pytest.fixture
def refused(call, tmp_path):
    """Calls, and checks that all that came of it is one sentence."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def run(words, match: str) -> None:
        before = snapshot(tmp_path)
        code, out, err = call(*words)
        assert code == 2, (out, err)
        assert err.startswith("widthwise: ") and err.endswith((".\n", "?\n")) and len(err) < 500
        assert err.count("\n") == 1 and not re.search(r"[.?!] [A-Z]", err), err
        assert re.search(match, err), err
        assert "{" not in out
        assert snapshot(tmp_path) == before

    return run


def snapshot(folder) -> dict:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def split(words) -> list[str]:
    return words.split() if isinstance(words, str) else list(words)


@pytest.mark.parametrize("what", DATA)
@pytest.mark.parametrize("command", ["compare", "fit"])
def test_data(refused, command, what):
    words, match = DATA[what]
    refused([command, *split(words)], match)


@pytest.mark.parametrize("what", NETWORKS)
@pytest.mark.parametrize("command", ["compare", "fit"])
def test_networks(refused, command, what):
    words, match = NETWORKS[what]
    refused([command, "good.csv", "--network", words], match)


@pytest.mark.parametrize("what", SETTINGS)
def test_settings(refused, what):
    words, match = SETTINGS[what]
    refused(["compare", "good.csv", *split(words)], match)


@pytest.mark.parametrize(
    "words, match",
    [
        ("--width 0", "not positive"),
        ("--width 8,inf", "'8,inf' is neither"),
        ("--width 8 --learner Posterior", "not computed yet|Posterior is for width=inf"),
        ("--scaling MuP --learner Posterior(kernel=ntk)", "leave kernel='ntk' out"),
        (("--scaling", UNSTABLE, "--learner", "GradientDescent"), "unstable"),
        ("--seed 1.5", "no whole number"),
        ("--memory plenty", "'plenty' is no size"),
        ("--memory 1MB --learner GradientFlow", "has no use for memory"),
        ("--cluster local", "give the folder of one"),
        ("--store s --cluster nowhere", "No Dask scheduler answers at 'nowhere'"),
    ],
)
def test_settings_of_fit(refused, words, match):
    refused(["fit", "good.csv", *split(words)], match)


@pytest.mark.parametrize("width", ["8", "inf"])
def test_steps_past_divergence(refused, width):
    words = ["--learner", DIVERGING, "--out", "new/place"]
    match = "left the finite numbers by step" if width == "8" else "past the largest stable step"
    refused(["compare", "good.csv", "--widths", width, "--seeds", "1", *words], match)
    refused(["fit", "good.csv", "--width", width, *words], match)


def test_no_memory(refused, monkeypatch):
    def probe(path):
        assert path == "/proc/meminfo"
        return io.StringIO("MemTotal: 9 kB\nMemAvailable: 1 kB\n")

    monkeypatch.setattr(memory, "open", probe, raising=False)
    refused(["compare", "good.csv", *FAST], "Kernel matrices of .* rows need .* use fewer rows")
    refused(["fit", "good.csv"], "use fewer rows")


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 9 GiB"), RuntimeError("XLA: Out of memory, 9 bytes")]
)
def test_no_memory_for_a_network(refused, monkeypatch, error):
    def draw(*_, **__):
        raise error

    monkeypatch.setattr("widthwise.family.train_finite", draw)
    refused(["compare", "good.csv", "--widths", "8", *FAST], "Not enough memory: use a smaller")


@pytest.mark.parametrize("command", ["compare", "fit", "predict"])
def test_places_that_cannot_be_written(refused, call, tmp_path, monkeypatch, command):
    if command == "predict":
        assert call("fit", tmp_path / "good.csv").code == 0
    words = [command, "good.csv"]
    refused([*words, "--out", "good.csv/out"], "as good.csv is a file")
    if command == "compare":
        refused([*words, "--out", "good.csv"], "as good.csv is a file")
    else:
        (tmp_path / "folder").mkdir()
        refused([*words, "--out", "folder"], "is a folder: name a file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused([*words, "--out", "some/where"], "The folder . is not writable")


def test_openml_without_network(refused, monkeypatch):
    def fetch(**_):
        raise URLError("Name or service not known")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    refused(["compare", "openml:houses"], "openml.org cannot be reached for 'houses'")


def test_predict(refused, call, tmp_path):
    assert call("fit", tmp_path / "good.csv").code == 0
    assert call("fit", tmp_path / "xy.npz", "--out", "arrays").code == 0
    model = (tmp_path / "model.widthwise").read_bytes()
    rows = {
        "few.csv": b"a\n1\n",
        "near.csv": b"a,B\n1,2\n",
        "text.csv": b"a,b\nx,2\n",
        "more.npz": npz(X=np.ones((2, 3))),
        "empty": b"",
        "short": model[:16],
        "cut": model[:-100],
        "bent": model[:3000] + b"?" + model[3001:],
        "newer": model[:16] + b"\x07" + model[17:],
    }
    for name, content in rows.items():
        (tmp_path / name).write_bytes(content)
    for words, match in (
        ("few.csv", "lack the column 'b'"),
        ("near.csv", "lack the column 'b'"),
        ("text.csv", "'a' has 'x' in row 1"),
        ("nowhere.csv", "no file nowhere.csv"),
        ("more.npz --model arrays", "have 3 features and the training rows 2"),
        ("good.csv --model nowhere", "model nowhere cannot be read: No such file"),
        ("good.csv --model good.csv", "not a model saved by"),
        ("good.csv --model empty", "not a model saved by"),
        ("good.csv --model short", "cut off or damaged"),
        ("good.csv --model cut", "cut off or damaged"),
        ("good.csv --model bent", "cut off or damaged"),
        ("good.csv --model newer", "model format 7 and this version reads 1"),
        ("", '"predict" parameter "?--rows"? requires'),
    ):
        refused(["predict", *words.split(), "--out", "predicted.csv"], match)


@pytest.mark.parametrize(
    "words, match",
    [
        ("comprae", '"comprae"; did you mean "compare"'),
        ("--foo", "available commands: compare"),
        ("list relluu", "did you mean Relu"),
        ("list --json=3", "bool"),
        ("fit", "requires an argument"),
    ],
)
def test_commands(refused, words, match):
    refused(words.split(), match)


def test_interrupted_fit_leaves_the_old_model(call, tmp_path, monkeypatch):
    (tmp_path / "good.csv").write_text(GOOD)
    assert call("fit", "good.csv").code == 0
    before = snapshot(tmp_path)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("widthwise.family.Member.train", stop)
    said = call("fit", "good.csv")
    assert said.code == 130 and said.err == "widthwise: Interrupted: nothing was written.\n"
    assert snapshot(tmp_path) == before
