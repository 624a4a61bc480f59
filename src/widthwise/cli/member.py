"""`widthwise fit` and `widthwise predict`: one member, saved and used."""

from pathlib import Path

from widthwise.cli.app import Json, Target, Whole, app, print_json, rows_of, told


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
    memory: str | None = None,
    store: Path | None = None,
    cluster: str | None = None,
    out: Path = Path("model.widthwise"),
    json_: Json = False,
) -> None:
    """Train one member and save it for `widthwise predict`.

    For example

      widthwise fit houses.csv --target price
      widthwise fit houses.csv --width 512 --scaling MuP --learner Adam
      widthwise fit mnist/ --learner "Posterior(kernel=ntk)" --store tiles --memory 16GB

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
        memory: for example 4GB: what the kernel of a Posterior may take, by default four fifths of
            what is free; where that is less than float64 needs, it is solved with by other ways.
        store: folder for the tiles of that kernel; stopped at any moment, the same command goes
            on from there.
        cluster: tcp://HOST:PORT of a Dask scheduler whose workers compute the tiles, or local.
        out: file to write.
        json_: print the scores as JSON and nothing else.
    """
    from widthwise.compare import Comparison
    from widthwise.family import Member
    from widthwise.measure.agreement import scores_of
    from widthwise.model import Model
    from widthwise.place import file_for
    from widthwise.resources import Resources
    from widthwise.spec import read_named, read_network, read_width

    layers = Comparison().network if network is None else read_network(network)
    size = read_width(width)
    usual = "Posterior" if size == float("inf") else "GradientDescent"
    chosen = read_named(learner or usual, "learner")
    member = Member(layers, size, read_named(scaling, "scaling"), chosen)
    asked = dict(data=data, target=target, task=task, train=train, test=test, seed=seed)
    rows = rows_of({name: value for name, value in asked.items() if value is not None})
    resources = Resources(memory, store, cluster, progress=True)
    with file_for(out):
        run = member.train(rows, seed=seed, order=seed, resources=resources)
        Model.of(run, rows).save(out)
    score, loss, _, seconds = scores_of(run, rows)
    name = "test accuracy" if rows.task == "classification" else "test R2"
    if json_:
        notes = [*rows.notes, *run.notes]
        found = {"model": str(out), name: score, "test loss": loss, "seconds": seconds}
        print_json(found | {"notes": notes})
        return
    print(told(rows), *(f"- {note}" for note in run.notes), sep="\n")
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
        print_json(table)
    if out is not None:
        from widthwise.place import file_for
        from widthwise.store import write_whole

        with file_for(out):
            write_whole(out, _csv(table).encode())
    elif not json_:
        print(_csv(table), end="")


def _csv(table: dict[str, list]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()
