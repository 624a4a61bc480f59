"""Word vectors: their neighbours, and the files that other programs read."""

import dataclasses
import functools
import os
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from widthwise.lookup import UnknownName, hint
from widthwise.tasks.words.files import written


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector a word.

    >>> two = Embeddings(("a", "b"), np.eye(2, dtype=np.float32), np.array([3, 1]))
    >>> two.nearest("a", 1)
    [('b', 0.0)]

    Args:
        words: V of them, the most frequent first.
        vectors: their vectors.
        counts: occurrences of each.
    """

    words: tuple[str, ...]
    vectors: Float[np.ndarray, "V n"]
    counts: Int[np.ndarray, " V"]

    @functools.cached_property
    def norms(self) -> Float[np.ndarray, " V"]:
        """Euclidean lengths; 1 for a vector of zeros."""
        lengths = np.sqrt(np.einsum("vn,vn->v", self.vectors, self.vectors))
        return np.where(lengths == 0, 1, lengths)

    @functools.cached_property
    def _place(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def place(self, word: str) -> int:
        """The row of a word; UnknownName with the nearest known ones otherwise."""
        if word not in self._place:
            known = self.words if len(self.words) <= 20 else self.words[:20_000]
            near = hint(word, known, 0.7)
            near = near if near.startswith("did") or len(self.words) <= 20 else "it was too rare."
            raise UnknownName(f"The vocabulary has no word {word!r}: {near}")
        return self._place[word]

    def cosines(self, places: Int[np.ndarray, " q"]) -> Float[np.ndarray, "q V"]:
        """Of the words in these places with all words."""
        products = self.vectors[places] @ self.vectors.T
        return products / (self.norms[places, None] * self.norms)

    def nearest(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """The words whose vectors have the largest cosine with this word's, largest first."""
        place = self.place(word)
        [cosines] = self.cosines(np.array([place]))
        order = np.argsort(-cosines, kind="stable")
        return [(self.words[k], float(cosines[k])) for k in order if k != place][:count]

    def save(self, path: str | os.PathLike) -> None:
        """Writes them in the format of word2vec or of NumPy, whole or not at all.

        Args:
            path: .txt for word2vec's text, .bin for its binary format (gensim's
                `KeyedVectors.load_word2vec_format(path, binary=True)` reads it), .npz for an
                archive of `words`, `vectors` and `counts`.

        Raises ValueError for other endings.
        """
        path = Path(path)
        writers = {".txt": self._text, ".bin": self._binary, ".npz": self._archive}
        if path.suffix not in writers:
            raise ValueError(f"{path} ends in none of {', '.join(writers)}: name it so.")
        with written(path) as file:
            writers[path.suffix](file)

    def _text(self, file) -> None:
        file.write(f"{len(self.words)} {self.vectors.shape[1]}\n".encode())
        for word, vector in zip(self.words, self.vectors, strict=True):
            file.write(f"{word} {' '.join(map(str, vector))}\n".encode())

    def _binary(self, file) -> None:
        file.write(f"{len(self.words)} {self.vectors.shape[1]}\n".encode())
        for word, vector in zip(self.words, self.vectors, strict=True):
            file.write(f"{word} ".encode() + vector.astype("<f4").tobytes() + b"\n")

    def _archive(self, file) -> None:
        np.savez(file, words=np.array(self.words), vectors=self.vectors, counts=self.counts)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Embeddings":
        """Reads an .npz that `save` wrote.

        Raises ValueError for any other file, and for one that is damaged.
        """
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                return cls(tuple(map(str, file["words"])), file["vectors"], file["counts"])
        except FileNotFoundError:
            raise ValueError(f"There is no file {path}.") from None
        except (zipfile.BadZipFile, KeyError, EOFError, OSError, ValueError) as error:
            raise ValueError(f"{path} holds no word vectors, or is damaged ({error}).") from None
