"""`widthwise optimiser-gap`: does Adam explain what kernels lack?"""

from pathlib import Path
from typing import Any

from widthwise.cli.app import Json, Target, Whole, app, print_json, rows_of, say, silent, told


@app.command
def optimiser_gap(
    data: str = "digits",
    *,
    target: Target = None,
    task: str | None = None,
    train: Whole | None = None,
    test: Whole | None = None,
    held_out: Whole | None = None,
    network: str = "Dense >> Relu >> Dense >> Relu >> Dense >> Relu >> Readout",
    learner: str = "Adam(steps=300, batch_size=100, eps=1e-4)",
    width: Whole = 1024,
    seeds: Whole = 5,
    sizes: Whole = 5,
    samples: Whole = 16_384,
    seed: Whole = 0,
    out: Path = Path("widthwise-optimiser-gap"),
    json_: Json = False,
) -> None:
    """Measure how much of the gap between kernels and networks is the optimiser's.

    Finite networks under Adam, the same linearised (features stay), and the Adam
    limit, beside kernel regression by gradient descent, with momentum, and to its
    end. Equal steps, equal batches, every method at its own best step size on rows
    held out. Every training is kept in the output folder: after an interruption
    the same command resumes.

    For example

      widthwise optimiser-gap
      widthwise optimiser-gap houses.csv --target price --width 512 --seeds 3
      widthwise optimiser-gap mnist/ --train 12000 --held-out 2000 --test 2000

    Args:
        data: as for `widthwise compare`.
        target: target column of a file, by default the last; repeat it for several.
        task: classification or regression; guessed from the target unless given.
        train: number of training rows, those held out among them.
        test: number of test rows; a fifth unless given.
        held_out: training rows that choose the step sizes; a fifth unless given.
        network: layers composed with >>, ending in Readout, or a TOML file that holds them.
        learner: Adam with its settings in brackets; steps, batches and loss are those of all.
        width: of the finite networks.
        seeds: of initial weights and batches.
        sizes: step sizes a method, in ratios of two; more where the best is at an end.
        samples: neurons a layer of the Adam limit; fewer where their fields would take 4 GB.
        seed: seeds the splits.
        out: folder for report.html, result.json and finished trainings.
        json_: print the result as JSON and nothing else.
    """
    from widthwise.place import folder_for
    from widthwise.spec import read_named, read_network
    from widthwise.tasks.optimiser_gap import OptimiserGap

    study = OptimiserGap(
        read_network(network), read_named(learner, "learner"), width, seeds, sizes, held_out,
        samples, seed,
    )  # fmt: skip
    asked = dict(data=data, target=target, task=task, train=train, test=test, seed=seed)
    rows = rows_of({name: value for name, value in asked.items() if value is not None})
    tell = silent if json_ else say
    tell(told(rows))
    with folder_for(out / "runs") as folder:
        try:
            found = study.run(rows, folder, say=tell, progress=not json_)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Interrupted: finished trainings are in {folder}; the same command resumes."
            ) from None
    page, result = _report(study, rows, found, asked, out)
    if json_:
        print_json(result.to_json())
        return
    print("", *result.headline, f"\nReport: {page}", sep="\n")


def _report(study: Any, rows: Any, found: Any, asked: dict[str, Any], out: Path):
    """The page, and what it was made from."""
    import shlex

    from widthwise.reporting import Result, listed, report
    from widthwise.reporting.build import described, settings_of
    from widthwise.tasks.optimiser_gap import OptimiserGap, finding_of

    finding, settings = finding_of(found), settings_of(study, OptimiserGap())
    words = ["widthwise", "optimiser-gap", asked["data"]]
    for name in ("target", "task", "train", "test"):
        values = asked[name] if isinstance(asked[name], list) else [asked[name]]
        words += [word for one in values if one is not None for word in (f"--{name}", str(one))]
    for row in settings:
        if row["chosen"]:
            words += [f"--{row['name'].replace('_', '-')}", row["value"]]
    result = Result(
        title=f"What the optimiser explains, on {rows.name}",
        headline=(finding.sentence,),
        network=repr(study.network),
        data=described(rows),
        settings=settings,
        findings=[finding.to_json()],
        sources=listed(finding.sources),
        seed=study.seed,
        seconds={name: round(tuned.seconds, 1) for name, tuned in found.items()},
        warnings=list(dict.fromkeys(
            f"{name}: {note}" for name, tuned in found.items() for note in tuned.best[0].notes
        )),
        command=shlex.join(words),
    )  # fmt: skip
    return report(result, out), result
