"""`widthwise fewshot`: learning to learn characters, at several widths."""

from pathlib import Path
from typing import Any

from widthwise.cli.app import Json, Whole, app, print_json, say, silent


@app.command
def fewshot(
    drawings: Path,
    *,
    widths: str = "2,8,32,128,512,inf",
    kernels: str = "linear,relu-gp,relu-ntk",
    seeds: Whole = 3,
    epochs: Whole = 100,
    way: Whole = 5,
    shot: Whole = 1,
    out: Path = Path("widthwise-fewshot"),
    json_: Json = False,
) -> None:
    """Train over tasks of few drawings, at several widths, infinity among them.

    First-order MAML of the linear network with one hidden layer, on Omniglot, and
    beside it the kernels that learn no features. Every member sees the same tasks.
    Where each stood after its last epoch is kept in the output folder: after an
    interruption the same command resumes.

    For example

      widthwise fewshot omniglot/
      widthwise fewshot omniglot/ --widths 32,inf --kernels "" --seeds 1 --epochs 5
      widthwise fewshot images_background.zip --way 20

    Args:
        drawings: folder with Omniglot's images_background and images_evaluation, as folders or as
            .zip files; or an omniglot.npz.
        widths: comma-separated whole numbers, and inf; "" for none.
        kernels: comma-separated, of linear, relu-gp and relu-ntk (which keep 8 GB of kernels for
            all of Omniglot); "" for none.
        seeds: trainings of each member; a seed draws tasks and initial weights.
        epochs: of 100 meta-batches of 32 tasks; the best one on validation tasks is kept.
        way: classes of a task.
        shot: drawings of each class to learn from.
        out: folder for report.html, result.json and finished members.
        json_: print the result as JSON and nothing else.
    """
    from widthwise.place import folder_for
    from widthwise.spec import read_width, split_words
    from widthwise.tasks.fewshot import FewShot, Study, read_drawings

    setting = FewShot(way=way, shot=shot, epochs=epochs)
    sizes = tuple(read_width(word) for word in split_words(widths))
    study = Study(sizes, tuple(split_words(kernels)), seeds, setting)
    tell = silent if json_ else say
    known = read_drawings(drawings)
    tell(f"{known.name}: {len(known.ink)} drawings of {len(known.classes)} characters.")
    with folder_for(out / "runs") as folder:
        try:
            found = study.run(known, folder, say=tell, progress=not json_)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Interrupted: finished members, and every epoch of the others, are in {folder}; "
                "the same command resumes."
            ) from None
    page, result = _report(study, known, found, drawings, out)
    if json_:
        print_json(result.to_json())
        return
    print("", *result.headline, f"\nReport: {page}", sep="\n")


def _report(study: Any, known: Any, found: Any, source: Path, out: Path):
    """The page, and what it was made from."""
    from widthwise.reporting import Result, listed, report
    from widthwise.reporting.build import settings_of
    from widthwise.tasks.fewshot import FewShot, Study, finding_of
    from widthwise.tasks.fewshot.drawings import RESAMPLED

    finding, setting = finding_of(study, found), study.setting
    rows = [row for row in settings_of(study, Study()) if row["name"] != "setting"]
    words = [f"--widths {_words(study.widths)}", f"--kernels {_words(study.kernels)}",
             f"--seeds {study.seeds}", f"--epochs {setting.epochs}", f"--way {setting.way}",
             f"--shot {setting.shot}", f"--out {out}"]  # fmt: skip
    result = Result(
        title=f"Learning to learn characters, on {known.name}",
        headline=(finding.sentence,),
        network="Dense() >> Readout()",
        data={
            "name": known.name, "characters": len(known.classes), "drawings": len(known.ink),
            "notes": [RESAMPLED],
        },
        settings=[*rows, *settings_of(setting, FewShot())],
        findings=[finding.to_json()],
        sources=listed(finding.sources),
        seed=setting.split,
        seconds={
            f"{member.name}, seed {run.seed}": round(sum(run.seconds), 1)
            for member, runs in found.items()
            for run in runs
        },
        command=f"widthwise fewshot {source} {' '.join(words)}",
    )  # fmt: skip
    return report(result, out), result


def _words(values: tuple[Any, ...]) -> str:
    joined = ",".join(f"{value:g}" if isinstance(value, float | int) else value for value in values)
    return joined or '""'
