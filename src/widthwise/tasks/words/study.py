"""Word vectors at several widths from one text, and what they know: what `widthwise words` does."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from widthwise import __version__
from widthwise import settings as checks
from widthwise.measure.base import Finding
from widthwise.store import write_whole
from widthwise.tasks.words import told
from widthwise.tasks.words.analogies import Analogies, Answers, Question, read_questions
from widthwise.tasks.words.corpus import Corpus, read, state_bytes
from widthwise.tasks.words.embeddings import Embeddings
from widthwise.tasks.words.picture import CitiesAndStates, Plane, draw
from widthwise.tasks.words.settings import BagOfWords
from widthwise.tasks.words.train import train
from widthwise.tasks.words.usual import usual

LIMIT = "kernel limit, U = I"


@dataclasses.dataclass(frozen=True)
class Study:
    """What to train; every field has the default of `widthwise words`.

    >>> Study(widths=(64, math.inf), seeds=1).seeds
    1

    Args:
        settings: of every training.
        widths: whole numbers, and infinity.
        seeds: trainings at each width. A seed orders the events, alike at all widths, and draws
            the initial vectors at finite ones.
        min_count: fewest occurrences of a word of the vocabulary.
        memory: what the state of the widest training may take, such as "4GB".
        near: words whose nearest neighbours are listed.
    """

    settings: BagOfWords = BagOfWords()
    widths: tuple[float, ...] = (64, 256, 1024, math.inf)
    seeds: int = 2
    min_count: int = 100
    memory: str = "4GB"
    near: tuple[str, ...] = ()

    def __post_init__(self):
        checks.whole(self, "seeds")
        checks.whole(self, "min_count")
        if not self.widths:
            raise ValueError("A study of no width came: give at least one.")


class Member(NamedTuple):
    """One finished training, as far as it is told about."""

    width: float
    seed: int
    seconds: float
    words_per_second: float
    answers: Answers | None
    plane: Plane | None
    near: tuple[tuple[tuple[str, float], ...], ...]  # for each word of `Study.near`


class Studied(NamedTuple):
    """What a study found."""

    findings: tuple[Finding, ...]
    members: tuple[Member, ...]
    corpus: Corpus
    folder: Path  # with the embeddings: width-64-seed-0.npz, .bin, ...


def study(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    asked: Study | None = None,
    *,
    questions: str | os.PathLike | None = None,
    threads: int | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda sentence: None,
) -> Studied:
    """Trains every width and seed and measures the vectors.

    >>> study("text.txt", "folder", Study(min_count=5))  # doctest: +SKIP

    Finished members and checkpoints are kept in the folder, under a name that changes with
    whatever they depend on: the same call resumes, and other settings do not collide.

    Args:
        path: the text, see `read`.
        folder: for the embeddings.
        asked: `Study()` unless given.
        questions: file of analogies, see `read_questions`; without it, neither analogies nor the
            picture are made.
        threads: of the CPU; as many as there are cores unless given. The result does not depend
            on it.
        progress: whether to show a bar on terminals.
        say: called with one sentence for each thing that is done.

    Raises ValueError for a text, questions or words that cannot be used, before any training.
    """
    asked = Study() if asked is None else asked
    analogies = Analogies(() if questions is None else read_questions(questions))
    folder = Path(folder)
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    corpus = read(
        path, folder / "corpus", min_count=asked.min_count, widest=max(asked.widths),
        memory=asked.memory,
    )  # fmt: skip
    for sentence in (*_planned(asked, corpus, analogies), *corpus.notes):
        say(sentence)
    unlearned = np.empty((len(corpus.words), 0), np.float32)
    for word in asked.near:
        Embeddings(corpus.words, unlearned, corpus.counts).place(word)
    home = folder / _key(asked, corpus)
    home.mkdir(exist_ok=True)
    members = []
    for width in sorted(asked.widths):
        for seed in range(asked.seeds):
            embeddings, spent = _member(
                corpus, asked.settings, width, seed, home, threads=threads, progress=progress
            )
            members.append(_measured(embeddings, width, seed, spent, asked.near, analogies))
            say(_finished(members[-1]))
    findings = _findings(asked, corpus, analogies.questions, tuple(members), folder)
    for finding in findings:
        say(f"{finding.title}: {finding.sentence}")
    return Studied(findings, tuple(members), corpus, home)


def _planned(asked: Study, corpus: Corpus, analogies: Analogies) -> list[str]:
    """The vocabulary and its memory, said before it is used."""
    size, widest = len(corpus.words), max(asked.widths)
    room = told.size_of(state_bytes(size, widest))
    sentences = [
        f"Vocabulary: {size:,} words that occur {corpus.counts[-1]:,} times or more, "
        f"{len(corpus.ids):,} occurrences. State at width {told.width_of(widest)}: {room}."
    ]
    if analogies.questions:
        known, total = len(analogies.asked(corpus.words)[0]), len(analogies.questions)
        sentences.append(f"Analogies: the words of {known:,} of {total:,} questions are known.")
    return sentences


def _key(asked: Study, corpus: Corpus) -> str:
    """A name for members, which changes with whatever these depend on."""
    known = repr((__version__, asked.settings, usual().rule, corpus.fingerprint))
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _member(
    corpus: Corpus,
    settings: BagOfWords,
    width: float,
    seed: int,
    home: Path,
    *,
    threads: int | None,
    progress: bool,
) -> tuple[Embeddings, dict[str, Any]]:
    """A member's vectors and what it took; read where it is finished, else trained and written."""
    name = f"width-{'inf' if width == math.inf else int(width)}-seed-{seed}"
    vectors, done = home / f"{name}.npz", home / f"{name}.json"  # the last to be written
    checkpoint = home / f"{name}.checkpoint"
    if done.exists():
        return Embeddings.load(vectors), json.loads(done.read_text())
    trained = train(
        corpus, width, settings, seed=seed, machine=usual(threads), checkpoint=checkpoint,
        progress=progress,
    )  # fmt: skip
    embeddings = trained.embeddings
    embeddings.save(vectors)
    embeddings.save(vectors.with_suffix(".bin"))
    read = settings.epochs * len(corpus.ids)
    spent = {"seconds": trained.seconds, "words_per_second": read / trained.seconds}
    write_whole(done, json.dumps(spent).encode())
    checkpoint.unlink()
    return embeddings, spent


def _measured(
    embeddings: Embeddings,
    width: float,
    seed: int,
    spent: dict[str, Any],
    near: tuple[str, ...],
    analogies: Analogies,
) -> Member:
    picture = CitiesAndStates(analogies.questions)
    return Member(
        width, seed, spent["seconds"], spent["words_per_second"],
        analogies(embeddings) if analogies.questions else None,
        picture(embeddings, f"width {told.width_of(width)}"),
        tuple(tuple(embeddings.nearest(word)) for word in near),
    )  # fmt: skip


def _finished(member: Member) -> str:
    score = ""
    if member.answers is not None and len(member.answers.asked):
        score = f"analogies {member.answers.correct.mean():.2%}, "
    return (
        f"Width {told.width_of(member.width)}, seed {member.seed}: {score}{member.seconds:,.0f} s, "
        f"{member.words_per_second:,.0f} words/s."
    )


def _findings(
    asked: Study,
    corpus: Corpus,
    questions: tuple[Question, ...],
    members: tuple[Member, ...],
    folder: Path,
) -> tuple[Finding, ...]:
    """Findings in the order of the page; the picture is written beside it."""
    found = [told.training(members)]
    if any(len(m.answers.asked) for m in members if m.answers is not None):
        found += [told.accuracy(members, questions), told.sections(members, questions)]
    limit = CitiesAndStates(questions).kernel_limit(corpus.words, LIMIT)
    if limit is not None:
        found.append(told.picture(limit, members))
        draw(told.shown_planes(limit, members), folder / "picture.svg")
    if asked.near:
        found.append(told.neighbours(asked.near, members))
    return tuple(found)
