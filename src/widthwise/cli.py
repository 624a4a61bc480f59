"""The command line: parse, call, show. What it imports at the top decides how fast help starts."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

app = App(
    name="widthwise",
    help="""Infinite-width neural networks: one network at every width, infinity among them.

For example

  widthwise compare                              # scikit-learn's digits
  widthwise compare houses.csv --target price    # your own table
  widthwise fit houses.csv --target price        # one member, saved ...
  widthwise predict new.csv                      # ... and used
  widthwise list                                 # all names

Exit codes: 0 done; 2 bad input, said in one sentence; 130 interrupted.""",
    help_format="plaintext",  # leaves the examples as they are written
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main says what was kept
)


def _whole(kind: Any, tokens: Any) -> int:
    """A whole number; the parser's own reading would round 1.5."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number.") from None


Whole = Annotated[int, Parameter(converter=_whole)]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Target = Annotated[list[str] | None, Parameter(negative="")]


@app.command
def compare(
    data: str | None = None,
    *,
    target: Target = None,
    task: str | None = None,
    train: Whole | None = None,
    test: Whole | None = None,
    network: str | None = None,
    scalings: str | None = None,
    learner: str | None = None,
    widths: str | None = None,
    seeds: Whole | None = None,
    tolerance: float | None = None,
    seed: Whole | None = None,
    spec: Path | None = None,
    out: Path = Path("widthwise-report"),
    json_: Json = False,
) -> None:
    """Train one network at several widths, lazy and rich, and write a report.

    Says which limit describes the network and how wide is wide enough. Finished
    members are kept in the output folder: after an interruption the same command
    resumes, and other settings do not collide.

    For example

      widthwise compare
      widthwise compare houses.csv --target price --widths 32,128,512,inf
      widthwise compare iris --scalings "NTK, Richness(r=0.25)" --learner Adam
      widthwise compare --network "Dense >> Erf >> Dense(times=2) >> Erf >> Readout"
      widthwise compare --spec study.toml --seeds 8

    where study.toml holds settings named as the options are, such as

      data = "digits"
      network = "Dense >> Relu >> Dense >> Relu >> Readout"
      scalings = ["NTK", "MuP"]
      learner = {name = "GradientDescent", steps = 100}
      widths = [64, 256, inf]

    Args:
        data: digits, iris, ...; a file (CSV, TSV, Parquet, ARFF, NPZ); a folder of images (idx or
            CIFAR binaries); or openml:NAME. Default: digits.
        target: target column of a file, by default the last; repeat it for several.
        task: classification or regression; guessed from the target unless given.
        train: number of training rows.
        test: number of test rows; a fifth unless given.
        network: layers composed with >> and +, ending in Readout. Default: two hidden Relu layers.
        scalings: comma-separated; one family is trained for each. Default: NTK,MuP.
        learner: name, with its settings in brackets. `widthwise list` has the names.
        widths: comma-separated whole numbers, and inf. Default: 64,256,1024,inf.
        seeds: draws of initial weights at each finite width.
        tolerance: relative gap to the limit that counts as agreement.
        seed: seeds the split and the batches.
        spec: TOML file with any of these settings; options given here win.
        out: folder for report.html, result.json and finished members.
        json_: print the result as JSON and nothing else.
    """
    from widthwise.place import folder_for
    from widthwise.spec import read_comparison, read_toml

    given = dict(
        data=data, target=target, task=task, train=train, test=test, network=network,
        scalings=scalings, learner=learner, widths=widths, seeds=seeds, tolerance=tolerance,
        seed=seed,
    )  # fmt: skip
    asked = {} if spec is None else read_toml(spec)
    asked |= {name: value for name, value in given.items() if value is not None}
    settings = read_comparison(asked)

    from widthwise.compare import compare as run
    from widthwise.reporting import report

    rows = _load(asked)
    with folder_for(out / "runs") as folder:
        say = _silent if json_ else _say
        say(_told(rows))
        before = _members(folder)
        try:
            result = run(rows, settings, folder=folder, say=say)
        except KeyboardInterrupt:
            if not (count := len(_members(folder) - before)):
                raise
            raise KeyboardInterrupt(
                f"Interrupted: {count} more {'members are' if count > 1 else 'member is'} finished "
                f"and kept in {folder}; the same command resumes."
            ) from None
        page = report(result, out)
    if json_:
        _print_json(result.to_json())
        return
    print("", *result.headline, f"\nReport: {page}  ({result.seconds['all']:.0f} s)", sep="\n")


@app.command
def fit(
    data: str,
    *,
    target: Target = None,
    task: str | None = None,
    train: Whole | None = None,
    test: Whole | None = None,
    network: str | None = None,
    width: str = "inf",
    scaling: str = "NTK",
    learner: str | None = None,
    seed: Whole = 0,
    out: Path = Path("model.widthwise"),
    json_: Json = False,
) -> None:
    """Train one member and save it for `widthwise predict`.

    For example

      widthwise fit houses.csv --target price
      widthwise fit houses.csv --width 512 --scaling MuP --learner Adam

    Args:
        data: as for compare.
        target: target column of a file, by default the last; repeat it for several.
        task: classification or regression; guessed from the target unless given.
        train: number of training rows.
        test: number of test rows; a fifth unless given.
        network: as for compare.
        width: a whole number, or inf.
        scaling: for example NTK or MuP.
        learner: for example Posterior (the default at width inf), GradientFlow, Adam,
            "GradientDescent(steps=400)" (the default at finite widths).
        seed: seeds the split, the initial weights and the batches.
        out: file to write.
        json_: print the scores as JSON and nothing else.
    """
    from widthwise.compare import Comparison
    from widthwise.family import Member
    from widthwise.measure.agreement import scores_of
    from widthwise.model import Model
    from widthwise.place import file_for
    from widthwise.spec import read_named, read_network, read_width

    layers = Comparison().network if network is None else read_network(network)
    size = read_width(width)
    usual = "Posterior" if size == float("inf") else "GradientDescent"
    chosen = read_named(learner or usual, "learner")
    member = Member(layers, size, read_named(scaling, "scaling"), chosen)
    asked = dict(data=data, target=target, task=task, train=train, test=test, seed=seed)
    rows = _load({name: value for name, value in asked.items() if value is not None})
    with file_for(out):
        run = member.train(rows, seed=seed, order=seed)
        Model.of(run, rows).save(out)
    score, loss, _, seconds = scores_of(run, rows)
    name = "test accuracy" if rows.task == "classification" else "test R2"
    if json_:
        notes = [*rows.notes, *run.notes]
        found = {"model": str(out), name: score, "test loss": loss, "seconds": seconds}
        _print_json(found | {"notes": notes})
        return
    print(_told(rows), *(f"- {note}" for note in run.notes), sep="\n")
    print(f"{name} {score:.4f} on {len(rows.x_test)} rows; saved to {out} ({seconds:.1f} s)")


@app.command
def predict(
    rows: Path,
    *,
    model: Path = Path("model.widthwise"),
    out: Path | None = None,
    json_: Json = False,
) -> None:
    """Predict new rows with a saved member: CSV on standard output, or into a file.

    Classes come with the probability of each, numbers with a standard deviation
    where the member has one.

    For example

      widthwise predict new.csv
      widthwise predict new.csv --model houses.widthwise --out predicted.csv

    Args:
        rows: file with the feature columns that the member was trained on; others are ignored.
        model: file written by `widthwise fit`; open only files that you trust.
        out: CSV file to write instead.
        json_: print JSON instead of CSV.
    """
    from widthwise.model import Model

    table = Model.load(model).predict(rows)
    if json_:
        _print_json(table)
    if out is not None:
        from widthwise.place import file_for
        from widthwise.store import write_whole

        with file_for(out):
            write_whole(out, _csv(table).encode())
    elif not json_:
        print(_csv(table), end="")


@app.command(name="list")
def list_(name: str | None = None, *, json_: Json = False) -> None:
    """Print the layers, scalings, learners, limits, instruments and data sets, or describe one.

    For example

      widthwise list
      widthwise list GradientDescent

    Args:
        name: what to describe: how it is written, with its settings and their meaning.
        json_: print all of them as JSON.
    """
    from widthwise.catalogue import catalogue, describe

    if name is not None and not json_:
        print(describe(name))
    elif json_:
        _print_json(catalogue())
    else:
        for kind, entries in catalogue().items():
            print(kind, *(f"  {x['name']:<16} {x['what']}" for x in entries), sep="\n")


def _load(asked: dict[str, Any]):
    from widthwise.data import load

    named = {k: asked[k] for k in ("target", "task", "train", "test", "seed") if k in asked}
    if isinstance(target := named.get("target"), list) and len(target) == 1:
        named["target"] = target[0]  # messages then speak of one column
    return load(asked.get("data", "digits"), **named)


def _members(folder: Path) -> set[str]:
    """The names of the finished members in a folder."""
    return {path.name for path in folder.glob("*.run")}


def _told(rows: Any) -> str:
    """A data set in a line, then what was done to it."""
    shape = str(rows).removeprefix("Data(").removesuffix(")")
    return "\n".join([f"Data {shape}.", *(f"- {note}" for note in rows.notes)])


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def _silent(sentence: str) -> None:
    """Says nothing: standard output is for the JSON."""


def _print_json(found: Any) -> None:
    from widthwise.reporting.result import plain

    print(json.dumps(plain(found), indent=1, allow_nan=False))


def _csv(table: dict[str, list]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()


def main(words: list[str] | None = None) -> None:
    """Runs the command line; every mistake ends in one sentence and a non-zero exit code."""
    from widthwise.refusal import advice_of, sentence_of

    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        _stop(advice_of(error), BAD_INPUT)
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "Interrupted: nothing was written.", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as in `widthwise list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        _stop(sentence, BAD_INPUT)


def _stop(sentence: str, code: int) -> NoReturn:
    print(f"widthwise: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(code)
