"""Word vectors at one width, from a corpus: trained, kept on the way, resumed."""

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from widthwise import __version__
from widthwise.progress import Progress
from widthwise.tasks.words import checkpoint as disk
from widthwise.tasks.words.corpus import Corpus
from widthwise.tasks.words.embeddings import Embeddings
from widthwise.tasks.words.events import Cursor, Draws, Events, draw
from widthwise.tasks.words.machine import AbstractMachine, State, start
from widthwise.tasks.words.settings import BagOfWords
from widthwise.tasks.words.usual import usual

SENTENCES = 8  # between two looks at the clock and at Ctrl-C
SHARE = 20  # checkpoints cost at most one part of so many of the time


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves; n columns, V at width infinity.

    Args:
        corpus: what was read.
        settings, width, seed: what was asked for.
        inputs: U, the embeddings.
        outputs: C, which scores a word in its context.
        seconds: spent, over all resumed parts.
        positions: trained by this call; a resumed one does the rest.
    """

    corpus: Corpus
    settings: BagOfWords
    width: float
    seed: int
    inputs: Float[np.ndarray, "V n"]
    outputs: Float[np.ndarray, "V n"]
    seconds: float
    positions: int

    @property
    def embeddings(self) -> Embeddings:
        """The rows of U with their words."""
        return Embeddings(self.corpus.words, self.inputs, self.corpus.counts)

    def predict(self, events: Events) -> Float[np.ndarray, "P targets"]:
        """<h, C> of all targets of these positions; NaN where a negative was left out."""
        inside = events.contexts >= 0
        rows = self.inputs[events.contexts] * inside[:, :, None]
        mean = rows.sum(axis=1) / inside.sum(axis=1)[:, None]
        scores = np.einsum("pn,ptn->pt", mean, self.outputs[events.targets])
        return np.where(events.targets < 0, np.nan, scores)


def train(
    corpus: Corpus,
    width: float = math.inf,
    settings: BagOfWords | None = None,
    *,
    seed: int = 0,
    machine: AbstractMachine | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: float = 60.0,
    progress: bool = True,
) -> Trained:
    """Learns word vectors at one width.

    >>> from widthwise.tasks.words import BagOfWords, from_words, train
    >>> corpus = from_words("the cat sat on the mat and the dog sat on the cat".split())
    >>> trained = train(corpus, width=16, settings=BagOfWords(sentence=4, sample=1.0))
    >>> trained.inputs.shape
    (7, 16)

    The order of events depends on the corpus, the settings and the seed, and on nothing else: it
    is the same at every width. The result is the same for any number of threads, and bit for bit
    the same if the training was interrupted and resumed.

    Args:
        corpus: see `read` and `from_words`.
        width: a whole number, or infinity.
        settings: `BagOfWords()` unless given.
        seed: of the order of events, and of the initial rows at a finite width.
        machine: `Threads()` unless given; `Batches()` where JAX has an accelerator.
        checkpoint: file to keep the training in; a training that finds its own there goes on
            from it.
        every: seconds between two checkpoints, at least.
        progress: whether to show a bar on terminals.

    Raises ValueError where the corpus has no whole sentence, or the training diverges;
    MemoryError where the tables do not fit. Ctrl-C writes the checkpoint and says so.
    """
    settings = BagOfWords() if settings is None else settings
    machine = usual() if machine is None else machine
    _refuse(width, corpus, settings)
    name = f"{__version__} {settings} {width:g} {seed} {machine.rule} {corpus.fingerprint}"
    path = None if checkpoint is None else Path(checkpoint)
    kept = None if path is None else disk.found(path, name)
    if kept is None:
        kept = disk.Kept(_start(len(corpus.words), width, seed), Cursor(), 0.0)
    label = f"width {'∞' if width == math.inf else format(width, 'g')}, seed {seed}"
    total = settings.epochs * len(corpus.ids)
    with Progress(label, total, show=progress) as bar, _deferred() as interrupted:
        kept, positions = _follow(
            corpus, settings, seed, machine, kept, bar, interrupted,
            keep=lambda now: path is not None and disk.keep(path, name, now) is None, every=every,
        )  # fmt: skip
    if not np.isfinite(kept.state.inputs).all():
        raise ValueError(f"The training at {label} diverged: give a smaller rate.")
    columns = len(corpus.words) if width == math.inf else int(width)
    inputs, outputs = (table[:, :columns] for table in kept.state)
    return Trained(corpus, settings, width, seed, inputs, outputs, kept.seconds, positions)


def _follow(
    corpus: Corpus,
    settings: BagOfWords,
    seed: int,
    machine: AbstractMachine,
    kept: disk.Kept,
    bar: Progress,
    interrupted: Callable[[], bool],
    *,
    keep: Callable[[disk.Kept], bool],
    every: float,
) -> tuple[disk.Kept, int]:
    """Through the rest of the events; the end, and how many positions there were."""
    draws = Draws.of(corpus.counts, settings.sample)
    cursor, held = kept.cursor, machine.begin(kept.state)
    bar.advance(cursor.read)
    began = written = time.perf_counter()
    pause, positions = every, 0

    def now() -> disk.Kept:
        seconds = kept.seconds + time.perf_counter() - began
        return disk.Kept(machine.state(held), cursor, seconds)

    while cursor.epoch < settings.epochs:
        before = cursor
        events, cursor = draw(corpus.ids, draws, settings, seed, cursor, SENTENCES)
        held = machine.follow(held, events, settings)
        positions += len(events.rates)
        moment = time.perf_counter()
        bar.advance(cursor.read - before.read)
        bar.say(f"{(cursor.read - kept.cursor.read) / (moment - began):,.0f} words/s")
        if interrupted():
            where = "was kept, and the same call resumes" if keep(now()) else "is lost"
            done = cursor.read / (settings.epochs * len(corpus.ids))
            raise KeyboardInterrupt(f"Interrupted: what was trained ({done:.0%}) {where}.")
        if moment - written > pause and keep(now()):
            written = time.perf_counter()
            pause = max(every, SHARE * (written - moment))
    if positions == 0 and kept.cursor == Cursor():
        raise ValueError(
            f"After sub-sampling, the corpus has fewer than the {settings.sentence} tokens of one "
            "sentence: give more text, a smaller sentence or a larger sample."
        )
    last = now()
    keep(last)
    return last, positions


def _refuse(width: float, corpus: Corpus, settings: BagOfWords) -> None:
    if width != math.inf and (width < 1 or width != int(width)):
        raise ValueError(f"The width {width} is no whole number: give one, or infinity.")
    if len(corpus.ids) < settings.sentence:
        raise ValueError(
            f"The corpus has {len(corpus.ids)} occurrences of words of its vocabulary, fewer than "
            f"the {settings.sentence} of one sentence: give more text or a smaller minimum count."
        )


def _start(vocabulary: int, width: float, seed: int) -> State:
    try:
        return start(vocabulary, width, seed)
    except MemoryError:
        raise MemoryError(
            f"Not enough memory for {vocabulary} words at width {width:g}: give a smaller width, a "
            "larger minimum count, or less memory to plan with."
        ) from None


@contextlib.contextmanager
def _deferred() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits until the events at hand are learned; a second one does not."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)
    asked = []

    def note(number, frame):
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
