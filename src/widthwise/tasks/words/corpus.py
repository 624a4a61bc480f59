"""A text as numbers: its words counted, the frequent ones kept, every occurrence their place."""

import codecs
import contextlib
import dataclasses
import gzip
import hashlib
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from widthwise.store import write_whole
from widthwise.tasks.words.files import written
from widthwise.tasks.words.kernel import Columns

BLOCK = 1 << 20  # bytes that are read at a time; no word is longer
OPENERS = {".gz": gzip.open, ".xz": lzma.open}
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """What training reads: V words, the most frequent first, and their N occurrences in order.

    Args:
        words: the vocabulary.
        counts: occurrences of each.
        ids: the text as places in the vocabulary, other words left out; may lie on disk.
        notes: what was left out, one sentence each.
    """

    words: tuple[str, ...]
    counts: Int[np.ndarray, " V"]
    ids: Int[np.ndarray, " N"]
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes with the vocabulary, its counts, and the beginning and end of the text."""
        ends = np.concatenate([self.ids[:10_000], self.ids[-10_000:]])
        told = "\n".join(self.words).encode() + self.counts.tobytes() + ends.tobytes()
        return hashlib.sha256(told).hexdigest()[:12]


def from_words(words: Sequence[str], *, min_count: int = 1) -> Corpus:
    """A corpus from words in memory.

    >>> from_words("a b a c b a".split(), min_count=2).ids.tolist()
    [0, 1, 0, 1, 0]
    """
    kept = _frequent(Counter(words), min_count)
    place = {word: number for number, (word, _) in enumerate(kept)}
    ids = np.array([place[word] for word in words if word in place], np.int32)
    return Corpus(*_columns(kept), ids)


def read(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    min_count: int = 100,
    widest: float = float("inf"),
    memory: str = "4GB",
) -> Corpus:
    """A text file of any size as a corpus; .gz and .xz are unpacked on the way.

    >>> read("text.txt", "folder", min_count=5)  # doctest: +SKIP

    Words are what white space separates, as they stand: neither case nor punctuation is touched,
    and the ends of lines end no sentence. The file is read twice, in blocks; the occurrences of the
    vocabulary are kept in `folder`, 4 bytes each, and found there by the next call.

    Args:
        path: UTF-8 text.
        folder: where the occurrences are kept.
        min_count: fewest occurrences of a word of the vocabulary.
        widest: of the widths that will be trained; infinity needs V columns.
        memory: what the state of a training may take, such as "4GB"; the vocabulary is cut to the
            most frequent words that fit.

    Raises ValueError for a file that is missing, empty, no text or without frequent words.
    """
    path, folder = Path(path), Path(folder)
    room = largest_vocabulary(widest, bytes_of(memory))
    try:
        stamp = path.stat()
    except OSError as error:
        raise ValueError(f"The corpus {path} cannot be read: {error.strerror}.") from None
    told = (str(path.resolve()), stamp.st_size, stamp.st_mtime_ns, min_count)
    key = hashlib.sha256(repr(told).encode()).hexdigest()[:12]
    counted = folder / f"{key}.vocabulary"
    if not counted.exists():
        lines = [f"{word} {count}" for word, count in _frequent(_count(path), min_count, path)]
        write_whole(counted, "\n".join(lines).encode())
    pairs = (line.rsplit(" ", 1) for line in counted.read_text("utf-8").split("\n"))
    known = [(word, int(count)) for word, count in pairs]
    words, counts = _columns(known[:room])
    encoded = folder / f"{key}-{len(words)}.ids"
    if not encoded.exists():
        _encode(path, words, encoded)
    ids = np.memmap(encoded, np.int32, "r").view(np.ndarray)
    return Corpus(words, counts, ids, _left_out(known, room, memory, widest))


def bytes_of(memory: str) -> int:
    """Bytes of a size in words.

    >>> bytes_of("4GB"), bytes_of("1.5 MB")
    (4000000000, 1500000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)?\s*", memory.upper())
    if found is None:
        raise ValueError(f"The memory {memory!r} cannot be read: write for example 4GB.")
    return int(float(found[1]) * UNITS[found[2] or ""])


def state_bytes(vocabulary: int, width: float) -> int:
    """Bytes of both tables at one width; at width infinity they have as many columns as rows.

    >>> state_bytes(2296, 64), state_bytes(2296, float("inf"))
    (1175552, 42319872)
    """
    columns = vocabulary if width == float("inf") else int(width)
    return 2 * 4 * vocabulary * Columns.of(columns).padded


def largest_vocabulary(width: float, memory: int) -> int:
    """The most words whose state at this width takes at most `memory` bytes."""
    low, high = 0, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if state_bytes(middle, width) <= memory else (low, middle)
    if low < 2:
        raise ValueError(f"{memory} bytes hold no two words: give more memory, such as 4GB.")
    return low


def _left_out(
    known: list[tuple[str, int]], room: int, memory: str, widest: float
) -> tuple[str, ...]:
    if len(known) <= room:
        return ()
    width = "∞" if widest == float("inf") else f"{widest:g}"
    return (
        f"Only the {room} most frequent of {len(known)} words are kept, so that the state at width "
        f"{width} fits into {memory}; the rarest occurs {known[room - 1][1]} times.",
    )


def _columns(known: list[tuple[str, int]]) -> tuple[tuple[str, ...], np.ndarray]:
    return tuple(word for word, _ in known), np.array([count for _, count in known], np.int64)


def _frequent(
    counter: Counter[str], min_count: int, path: Path | None = None
) -> list[tuple[str, int]]:
    """Words and counts, the most frequent first, equals by the alphabet."""
    kept = [(word, count) for word, count in counter.items() if count >= min_count]
    if len(kept) < 2:
        most = max(counter.values(), default=0)
        raise ValueError(
            f"{'The corpus' if path is None else path} has {len(kept)} words that occur "
            f"{min_count} times or more, and the most frequent occurs {most} times: give a "
            "smaller minimum count, or more text."
        )
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))


def _count(path: Path) -> Counter[str]:
    counter: Counter[str] = Counter()
    for words in _words(path):
        counter.update(words)
    if not counter:
        raise ValueError(f"The corpus {path} is empty: give a text file.")
    return counter


def _encode(path: Path, words: tuple[str, ...], target: Path) -> None:
    """Writes the text as places in the vocabulary, whole or not at all."""
    place = {word: number for number, word in enumerate(words)}
    with written(target) as file:
        for block in _words(path):
            found = [place[word] for word in block if word in place]
            file.write(np.array(found, np.int32).tobytes())


def _words(path: Path) -> Iterator[list[str]]:
    """The words of the file, a block at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest = ""
    with _opened(path) as file:
        while True:
            block = file.read(BLOCK)
            try:
                text = rest + decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                found = error.object[error.start]
                raise ValueError(
                    f"The corpus {path} is not UTF-8 text (byte 0x{found:02x}): convert it first."
                ) from None
            if "\0" in text:
                raise ValueError(f"The corpus {path} has zero bytes, hence is not text.")
            words = text.split()
            whole = not block or text[-1:].isspace()
            rest = "" if whole or not words else words.pop()
            if len(rest) > BLOCK:
                raise ValueError(f"The corpus {path} has a word of over {BLOCK} letters: no text.")
            yield words
            if not block:
                return


@contextlib.contextmanager
def _opened(path: Path):
    """The file's bytes, unpacked; what is no such file is refused in one sentence."""
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield file
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ValueError(f"The corpus {path} is cut off or damaged ({error}).") from None
    except OSError as error:
        raise ValueError(f"The corpus {path} cannot be read: {error.strerror or error}.") from None
