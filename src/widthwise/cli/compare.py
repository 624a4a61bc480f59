"""`widthwise compare`: one network at several widths and scalings, told as a page."""

from pathlib import Path

from widthwise.cli.app import Json, Target, Whole, app, print_json, rows_of, say, silent, told


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
    projection: Whole | None = None,
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
      widthwise compare --network myrtle.toml --widths 8,32,128,inf
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
        network: layers composed with >> and +, ending in Readout, or a TOML file that holds them as
            `network`. Default: two hidden Relu layers.
        scalings: comma-separated; one family is trained for each. Default: NTK,MuP.
        learner: name, with its settings in brackets. `widthwise list` has the names.
        projection: rich scalings are trained once more with their gradients projected onto so many
            directions a layer, which has a limit at any depth; 0 leaves that out. Default: 64.
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
        scalings=scalings, learner=learner, projection=projection, widths=widths, seeds=seeds,
        tolerance=tolerance, seed=seed,
    )  # fmt: skip
    asked = {} if spec is None else read_toml(spec)
    asked |= {name: value for name, value in given.items() if value is not None}
    settings = read_comparison(asked)

    from widthwise.compare import compare as run
    from widthwise.reporting import report

    rows = rows_of(asked)
    with folder_for(out / "runs") as folder:
        tell = silent if json_ else say
        tell(told(rows))
        before = _members(folder)
        try:
            result = run(rows, settings, folder=folder, say=tell)
        except KeyboardInterrupt:
            if not (count := len(_members(folder) - before)):
                raise
            raise KeyboardInterrupt(
                f"Interrupted: {count} more {'members are' if count > 1 else 'member is'} finished "
                f"and kept in {folder}; the same command resumes."
            ) from None
        page = report(result, out)
    if json_:
        print_json(result.to_json())
        return
    print("", *result.headline, f"\nReport: {page}  ({result.seconds['all']:.0f} s)", sep="\n")


def _members(folder: Path) -> set[str]:
    """The names of the finished members in a folder."""
    return {path.name for path in folder.glob("*.run")}
