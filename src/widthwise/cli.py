"""The command line: parse, call, show. What it imports at the top decides how fast help starts."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

app = App(
    name="widthwise",
    help="Infinite-width neural networks: one network at every width, infinity among them.",
    version_flags=["--version"],
)

SPEC_KEYS = (
    "data", "target", "task", "train", "test", "network", "scalings", "learner", "widths", "seeds",
    "tolerance", "seed",
)  # fmt: skip
INTERRUPTED, BAD_INPUT = 130, 2


@app.command
def compare(
    data: str | None = None,
    *,
    target: str | None = None,
    task: str | None = None,
    train: int | None = None,
    test: int | None = None,
    network: str | None = None,
    scalings: str | None = None,
    learner: str | None = None,
    widths: str | None = None,
    seeds: int | None = None,
    tolerance: float | None = None,
    seed: int | None = None,
    spec: Path | None = None,
    out: Path = Path("widthwise-report"),
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Train one network at several widths, lazy and rich, and write a report.

    Says which limit describes the network and how wide is wide enough. Finished runs are kept in
    the output folder: the same command resumes after an interruption.

    Args:
        data: embedded set (digits, iris, ...), a file (CSV, TSV, Parquet, ARFF, NPZ), a folder of
            idx or CIFAR binaries, or openml:NAME. Default: digits.
        target: target column of a file.
        task: classification or regression; guessed from the target unless given.
        train: number of training rows.
        test: number of test rows.
        network: for example "Dense >> Relu >> Dense >> Relu >> Readout".
        scalings: comma-separated, for example "NTK, MuP, Richness(r=0.25)".
        learner: for example "Adam" or "GradientDescent(steps=400, batch_size=100)".
        widths: comma-separated, for example 64,256,1024,inf.
        seeds: draws of initial weights at each finite width.
        tolerance: relative gap to the limit that counts as agreement.
        seed: seeds the split and the batches.
        spec: TOML file with any of these settings; options given here win.
        out: folder for report.html, result.json and finished runs.
        json_: print the result as JSON instead of sentences.
    """
    given = dict(
        data=data, target=target, task=task, train=train, test=test, network=network,
        scalings=scalings, learner=learner, widths=widths, seeds=seeds, tolerance=tolerance,
        seed=seed,
    )  # fmt: skip
    asked = _asked(spec, given)
    from widthwise.compare import compare as run
    from widthwise.report import write_report

    settings = _comparison(asked)
    rows = _load(asked)
    _writable(out)
    say = (lambda sentence: None) if json_ else (lambda sentence: print(f"- {sentence}"))
    result = run(rows, settings, folder=out / "runs", progress=not json_, say=say)
    page = write_report(result, out)
    if json_:
        print(json.dumps(result.to_json(), indent=1))
        return
    print()
    for sentence in result.headline:
        print(sentence)
    print(f"\nReport: {page}  ({result.seconds['all']:.0f} s)")


@app.command
def fit(
    data: str,
    *,
    target: str | None = None,
    task: str | None = None,
    train: int | None = None,
    test: int | None = None,
    network: str | None = None,
    width: str = "inf",
    scaling: str = "NTK",
    learner: str = "Posterior",
    seed: int = 0,
    out: Path = Path("model.widthwise"),
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Train one member and save it for `widthwise predict`.

    Args:
        data: as for compare.
        target: target column of a file.
        task: classification or regression; guessed from the target unless given.
        train: number of training rows.
        test: number of test rows.
        network: as for compare.
        width: a whole number, or inf.
        scaling: for example NTK or MuP.
        learner: for example Posterior, GradientFlow, GradientDescent or Adam.
        seed: seeds the split, the initial weights and the batches.
        out: file to write.
        json_: print the scores as JSON.
    """
    from widthwise.compare import Comparison
    from widthwise.family import Member
    from widthwise.measure.agreement import scores_of
    from widthwise.model import Model
    from widthwise.spec import read_named, read_network, read_width

    layers = Comparison().network if network is None else read_network(network)
    member = Member(
        layers, read_width(width), read_named(scaling, "scaling"), read_named(learner, "learner")
    )
    rows = _load(dict(data=data, target=target, task=task, train=train, test=test, seed=seed))
    _writable(out.parent)
    run = member.train(rows, seed=seed, order=seed)
    Model.of(run, rows).save(out)
    score, loss, _, seconds = scores_of(run, rows)
    name = "test accuracy" if rows.task == "classification" else "test R2"
    found = {"model": str(out), name: score, "test loss": loss, "seconds": seconds}
    if json_:
        print(json.dumps(found))
    else:
        print(f"{name} {score:.4f} on {len(rows.x_test)} rows; saved to {out} ({seconds:.1f} s)")
        for note in (*rows.notes, *run.notes):
            print(f"- {note}")


@app.command
def predict(
    model: Path,
    rows: Path,
    *,
    out: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Predict new rows with a saved member: CSV on standard output, or into a file.

    Args:
        model: file written by fit.
        rows: file with the same feature columns.
        out: CSV file to write.
        json_: print JSON instead of CSV.
    """
    from widthwise.model import Model

    table = Model.load(model).predict(rows)
    if json_:
        print(json.dumps({name: list(column) for name, column in table.items()}))
        return
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    if out is None:
        print("\n".join(lines))
        return
    from widthwise.run import write_whole

    _writable(out.parent)
    write_whole(out, ("\n".join(lines) + "\n").encode())


@app.command(name="list")
def list_(*, json_: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Print the layers, scalings, learners, limits, instruments and data sets by name.

    Args:
        json_: print JSON.
    """
    from widthwise.catalogue import catalogue

    found = catalogue()
    if json_:
        print(json.dumps(found, indent=1))
        return
    for kind, entries in found.items():
        print(kind)
        for entry in entries:
            print(f"  {entry['name']:<20} {entry['what']}")


def _asked(spec: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the spec file, overruled by those given on the command line."""
    from widthwise.spec import read_toml

    asked = {} if spec is None else read_toml(spec, SPEC_KEYS)
    return asked | {name: value for name, value in given.items() if value is not None}


def _comparison(asked: dict[str, Any]):
    from widthwise.compare import Comparison
    from widthwise.spec import read_named, read_network, read_width, split_words

    settings = {k: asked[k] for k in ("seeds", "tolerance", "seed") if k in asked}
    if "network" in asked:
        settings["network"] = read_network(asked["network"])
    if "learner" in asked:
        settings["learner"] = read_named(asked["learner"], "learner")
    if "scalings" in asked:
        words = split_words(asked["scalings"])
        settings["scalings"] = tuple(read_named(word, "scaling") for word in words)
    if "widths" in asked:
        settings["widths"] = tuple(read_width(word) for word in split_words(asked["widths"]))
    return Comparison(**settings)


def _load(asked: dict[str, Any]):
    from widthwise.data import load

    named = {k: asked[k] for k in ("target", "task", "train", "test", "seed") if k in asked}
    return load(asked.get("data", "digits"), **named)


def _writable(folder: Path) -> None:
    """Refuses before any work what could not be written after it."""
    import os

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The output folder {folder} cannot be made ({error.strerror}): choose another."
        ) from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"The output folder {folder} is not writable: choose another.")


def main(words: list[str] | None = None) -> None:
    """Runs the command line; every mistake ends in one sentence and a non-zero exit code."""
    try:
        app(words)
    except KeyboardInterrupt:
        print("Interrupted: finished members are kept; the same command resumes.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ValueError, MemoryError, OSError) as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        print(f"widthwise: {sentence}", file=sys.stderr)
        sys.exit(BAD_INPUT)
