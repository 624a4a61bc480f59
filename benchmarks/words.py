"""Word vectors at width infinity (2,296 words) and at 64, 256 and 1024, on one thread and on two,
against 6,600 words a second and core of the authors' C code at infinity, and against the floor:
the bytes of the rows of a position, read once and written once, at the rate of memory in this run.
Words are those of the vocabulary before sub-sampling, as the C code counts them.

    WIDTHWISE_DATA=FOLDER python benchmarks/words.py    # with text8-prefix/text8-prefix.txt.xz
"""

import itertools
import lzma
import math
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from timing import best

from widthwise.tasks.words import BagOfWords, Threads, from_words
from widthwise.tasks.words.events import Cursor, Draws, Events, draw
from widthwise.tasks.words.machine import start

VOCABULARY, SENTENCES, REFERENCE = 2296, 10, 6600.0


def memory_rate(threads: int) -> float:
    """Bytes a second, read and written, of scaling a table that no cache holds."""
    tables = [np.ones(1 << 25, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = best(lambda: list(pool.map(lambda x: np.multiply(x, 1.5, out=x), tables)))
    return 2 * sum(table.nbytes for table in tables) / seconds


def rows_of(events: Events) -> float:
    """Distinct rows of a position, in both tables, on average."""
    tables = (events.contexts, events.targets)
    count = [len(set(row[row >= 0].tolist())) for table in tables for row in table[:1000]]
    return 2 * float(np.mean(count))


def main() -> None:
    if "WIDTHWISE_DATA" not in os.environ:
        sys.exit("Skipped: set WIDTHWISE_DATA to a folder with text8-prefix/text8-prefix.txt.xz.")
    path = Path(os.environ["WIDTHWISE_DATA"]) / "text8-prefix" / "text8-prefix.txt.xz"
    text = lzma.open(path, "rt").read().split()
    frequent = {word for word, _ in Counter(text).most_common(VOCABULARY)}
    corpus, settings = from_words([word for word in text if word in frequent]), BagOfWords()
    draws = Draws.of(corpus.counts, settings.sample)
    events, end = draw(corpus.ids, draws, settings, 0, Cursor(), SENTENCES)
    rows, positions = rows_of(events), len(events.rates)
    print(f"{positions} positions of {end.read} words, {rows:.1f} rows each")
    rates = {threads: memory_rate(threads) for threads in (1, 2)}
    for threads, width in itertools.product((1, 2), (math.inf, 1024, 256, 64)):
        if width == 64 and threads > 1:
            continue  # its rows are one slice, hence one thread's
        state, machine = start(VOCABULARY, width, 0), Threads(threads=threads)
        seconds = best(lambda: machine.follow(state, events, settings), repeats=3)  # noqa: B023
        floor = positions * rows * 2 * 4 * state.inputs.shape[1] / rates[threads]
        words = end.read / seconds / threads
        ratio = f", {words / REFERENCE:.1f} times the C code's" if width == math.inf else ""
        print(
            f"width {width:g}, {threads} thread(s): {words:,.0f} words/s and core{ratio}; "
            f"{1e6 * seconds / positions:.1f} us a position, floor {1e6 * floor / positions:.1f} "
            f"at {rates[threads] / 1e9:.1f} GB/s, ratio {seconds / floor:.2f}"
        )


if __name__ == "__main__":
    main()
