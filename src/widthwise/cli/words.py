"""`widthwise words`: word vectors from a text, at several widths."""

import math
from pathlib import Path

from widthwise.cli.app import Json, Whole, app, print_json, say, silent


@app.command
def words(
    corpus: Path,
    *,
    widths: str = "64,256,1024,inf",
    seeds: Whole = 2,
    min_count: Whole = 100,
    epochs: Whole = 1,
    memory: str = "4GB",
    questions: Path | None = None,
    near: str | None = None,
    window: Whole = 8,
    negative: Whole = 25,
    sample: float = 1e-4,
    rate: float = 0.05,
    weight_decay: float = 0.001,
    threads: Whole | None = None,
    out: Path = Path("widthwise-words"),
    json_: Json = False,
) -> None:
    """Learn word vectors from a text at several widths, infinity among them.

    Continuous bag of words with negative sampling; the same settings and the same
    order of events at every width. Writes the vectors (word2vec's binary format,
    and NPZ), a report and a picture. Checkpoints are kept in the output folder:
    after an interruption the same command resumes.

    For example

      widthwise words text.txt --min-count 5
      widthwise words wiki.txt.xz --questions questions-words.txt --near king,france
      widthwise words text8 --widths 64,inf --min-count 5 --epochs 15 --memory 64GB

    Args:
        corpus: text, UTF-8, words between white space; may end in .gz or .xz.
        widths: comma-separated whole numbers, and inf.
        seeds: trainings at each width.
        min_count: fewest occurrences of a word of the vocabulary.
        epochs: times that the text is read.
        memory: what one training's state may take; the vocabulary is cut to fit, and says so.
        questions: analogies, in the format of questions-words.txt.
        near: comma-separated words whose nearest neighbours are listed.
        window: words on either side.
        negative: negatives a position.
        sample: threshold of sub-sampling.
        rate: step size at the start.
        weight_decay: of the rows that are touched.
        threads: of the CPU; as many as there are cores unless given. The result is the same.
        out: folder for vectors, checkpoints, report.html, result.json and picture.svg.
        json_: print the result as JSON and nothing else.
    """
    from widthwise.place import folder_for
    from widthwise.spec import SpecError, read_width, split_words
    from widthwise.tasks.words import BagOfWords
    from widthwise.tasks.words.study import Study, study

    sizes = tuple(dict.fromkeys(map(read_width, split_words(widths))))
    if not sizes:
        raise SpecError("widths is empty: give at least one, separated by commas.")
    settings = BagOfWords(
        window=window, negative=negative, sample=sample, rate=rate, weight_decay=weight_decay,
        epochs=epochs,
    )  # fmt: skip
    asked = Study(settings, sizes, seeds, min_count, memory, tuple(split_words(near or "")))
    tell = silent if json_ else say
    with folder_for(out) as folder:
        found = study(corpus, folder, asked, questions=questions, threads=threads, say=tell)
        page, result = _report(found, asked, corpus, out)
    if json_:
        print_json(result.to_json())
        return
    _print_table(found)
    print(f"Vectors: {found.folder}", f"Report: {page}", sep="\n")


def _report(found, asked, corpus: Path, out: Path):
    """The page and its JSON."""
    from widthwise.reporting import Result, listed, report
    from widthwise.reporting.build import settings_of
    from widthwise.tasks.words import BagOfWords
    from widthwise.tasks.words.study import Study

    rows = settings_of(asked, Study())
    rows = [row for row in rows if row["name"] != "settings"]
    rows += settings_of(asked.settings, BagOfWords())
    result = Result(
        title=f"Word vectors at every width, from {corpus.name}",
        headline=(_main(found).sentence,),
        network="U (context) >> Mean() >> C (word)",
        data={
            "name": corpus.name, "vocabulary": len(found.corpus.words),
            "occurrences": len(found.corpus.ids), "notes": list(found.corpus.notes),
        },
        settings=rows,
        findings=[finding.to_json() for finding in found.findings],
        sources=listed(source for finding in found.findings for source in finding.sources),
        seconds={
            f"width {'∞' if m.width == math.inf else m.width}, seed {m.seed}": round(m.seconds, 1)
            for m in found.members
        },
    )  # fmt: skip
    return report(result, out), result


def _main(found):
    """The finding that comes first: accuracies where questions were asked, else seconds."""
    return next((f for f in found.findings if f.title == "Analogies"), found.findings[0])


def _print_table(found) -> None:
    from rich.console import Console
    from rich.table import Table

    finding = _main(found)
    table = Table(*finding.table.columns, title=finding.title)
    for row in finding.table.rows:
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console().print(table)
