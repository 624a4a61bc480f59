"""Analogies: a is to b as c is to which word?"""

import dataclasses
import os
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from widthwise.tasks.words.embeddings import Embeddings

BLOCK = 2048  # words that are scored at a time


@dataclasses.dataclass(frozen=True)
class Question:
    """One line of the file, and the section it stands in."""

    section: str
    words: tuple[str, str, str, str]


class Answers(NamedTuple):
    """Which questions could be asked, as their places in the file, and which were answered."""

    asked: Int[np.ndarray, " Q"]
    correct: Bool[np.ndarray, " Q"]


def read_questions(path: str | os.PathLike) -> tuple[Question, ...]:
    """Questions in the format of questions-words.txt.

    >>> _ = Path("questions.txt").write_text(": capitals\\nAthens Greece Berlin Germany\\n")
    >>> read_questions("questions.txt")
    (Question(section='capitals', words=('Athens', 'Greece', 'Berlin', 'Germany')),)

    Args:
        path: text; lines of four words, under lines `: section`.

    Raises ValueError, with the line's number, for anything else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"The questions {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ValueError(f"The questions {path} are not UTF-8 text.") from None
    found, section = [], ""
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words[:1] == [":"]:
            section = " ".join(words[1:])
        elif len(words) == 4:
            found.append(Question(section, (words[0], words[1], words[2], words[3])))
        elif words:
            raise ValueError(
                f"Line {number} of {path} has {len(words)} words: questions have four, and a new "
                "section begins with a colon."
            )
    if not found:
        raise ValueError(f"{path} has no questions: give lines of four words.")
    return tuple(found)


def places(words: tuple[str, ...]) -> dict[str, int]:
    """Upper-case words to their places; of words that differ in case alone, the most frequent."""
    return {word.upper(): number for number, word in reversed(list(enumerate(words)))}


@dataclasses.dataclass(frozen=True)
class Analogies:
    """Accuracy on analogies: d is the word whose direction is nearest to b - a + c.

    >>> vectors = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1.0]], np.float32)
    >>> embeddings = Embeddings(("he", "his", "she", "her"), vectors, np.array([4, 3, 2, 1]))
    >>> question = Question("pronouns", ("he", "his", "she", "her"))
    >>> Analogies((question,))(embeddings).correct
    array([ True])

    As in compute-accuracy.c: all words of the vocabulary are candidates except a, b and c, case
    is ignored, rows are scaled to length 1, and questions with unknown words are left out.

    Args:
        questions: see `read_questions`.
    """

    source: ClassVar[str] = "mikolov2013efficient, section 4.1"
    questions: tuple[Question, ...]

    def asked(self, words: tuple[str, ...]) -> tuple[Int[np.ndarray, " Q"], Int[np.ndarray, "Q 4"]]:
        """Questions whose four words are known: their places in the file, and their words'."""
        known = places(words)
        found = [[known.get(word.upper(), -1) for word in q.words] for q in self.questions]
        rows = np.array(found, np.int64).reshape(-1, 4)
        [kept] = np.nonzero((rows >= 0).all(axis=1))
        return kept, rows[kept]

    def __call__(self, embeddings: Embeddings) -> Answers:
        asked, rows = self.asked(embeddings.words)
        if not len(asked):
            return Answers(asked, np.zeros(0, bool))
        unique, inverse = np.unique(rows[:, :3], return_inverse=True)
        a, b, c = inverse.reshape(-1, 3).T
        scaled = embeddings.vectors[unique] / embeddings.norms[unique, None]
        best, answer = np.full(len(rows), -np.inf), np.zeros(len(rows), np.int64)
        for low in range(0, len(embeddings.words), BLOCK):
            block = slice(low, low + BLOCK)
            # <b - a + c, d> from cosines of words: few of them occur in questions
            cosines = scaled @ embeddings.vectors[block].T / embeddings.norms[block]
            scores = cosines[b] - cosines[a] + cosines[c]
            for column in rows.T[:3] - low:
                [inside] = np.nonzero((column >= 0) & (column < scores.shape[1]))
                scores[inside, column[inside]] = -np.inf
            found = scores.argmax(axis=1)
            value = scores[np.arange(len(rows)), found]
            better = value > best
            best[better], answer[better] = value[better], found[better] + low
        return Answers(asked, answer == rows[:, 3])


class Gap(NamedTuple):
    """A difference of accuracies and its standard error, paired over questions."""

    mean: float
    error: float


def gap(one: Bool[np.ndarray, "s Q"], other: Bool[np.ndarray, "t Q"]) -> Gap:
    """Accuracy of one width minus another's; each with its seeds, on the same questions.

    >>> gap(np.array([[True, True, True, False]]), np.array([[True, False, True, False]]))
    Gap(mean=0.25, error=0.25)
    """
    difference = one.mean(axis=0) - other.mean(axis=0)
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
    return Gap(float(difference.mean()), float(error))
