"""Texts, files, analogies and the picture."""

import gzip
import itertools
import lzma
import math
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from widthwise.tasks.words import Analogies, CitiesAndStates, Embeddings, from_words, read
from widthwise.tasks.words import corpus as reading
from widthwise.tasks.words.analogies import Question, gap, read_questions
from widthwise.tasks.words.picture import components, nearest_centroid

QUESTIONS = """: city-in-state
Chicago Illinois Houston Texas
Dallas Texas Boston Georgia
: family
he she his her
"""


def vectors(words: str, width: int = 6, seed: int = 0) -> Embeddings:
    names = tuple(words.split())
    drawn = np.random.default_rng(seed).normal(size=(len(names), width)).astype(np.float32)
    return Embeddings(names, drawn, np.arange(len(names), 0, -1))


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_reading_in_blocks(tmp_path, monkeypatch, ending, block):
    text = "  über the\nend  of\tthe linė the über\u00a0rest  the " * 3
    path = tmp_path / f"text{ending}"
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending]
    path.write_bytes(pack(text.encode()))
    monkeypatch.setattr(reading, "BLOCK", max(block, 1))
    if block == 1:
        monkeypatch.setattr(reading, "_opened", lambda path: _bytewise(text))
        monkeypatch.setattr(reading, "BLOCK", 40)
    found = read(path, tmp_path, min_count=4)
    wanted = from_words(text.split(), min_count=4)
    assert found.words == wanted.words == ("the", "über") and not found.notes
    assert (found.ids == wanted.ids).all() and (found.counts == wanted.counts).all()


def _bytewise(text):
    """A file that yields one byte a time, so that letters and words are cut everywhere."""
    from contextlib import nullcontext

    class Slow:
        bytes = iter(text.encode())

        def read(self, size):
            return bytes(itertools.islice(self.bytes, 1))

    return nullcontext(Slow())


def test_second_reading_comes_from_the_folder(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_text("a b a c " * 5)
    first = read(path, tmp_path, min_count=1)
    monkeypatch.setattr(reading, "_words", None)
    assert (read(path, tmp_path, min_count=1).ids == first.ids).all()
    monkeypatch.undo()
    path.write_text("a b a c " * 6)
    assert len(read(path, tmp_path, min_count=1).ids) == 24


def test_vocabulary_is_cut_to_the_memory(tmp_path):
    path = tmp_path / "text"
    path.write_text(" ".join(f"w{k} " * (200 - k) for k in range(150)))
    room = reading.largest_vocabulary(math.inf, 100_000)
    assert reading.state_bytes(room, math.inf) <= 100_000 < reading.state_bytes(room + 1, math.inf)
    found = read(path, tmp_path, min_count=1, memory="100KB")
    assert found.words == tuple(f"w{k}" for k in range(room))
    assert "97 most frequent of 150 words" in found.notes[0] and "fits into 100KB" in found.notes[0]
    assert len(read(path, tmp_path, min_count=1, widest=8, memory="100KB").words) == 150


@pytest.mark.parametrize(
    "content, match",
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"a b a", "1 words that occur 2 times or more, and the most frequent occurs 2 times"),
        (b"caf\xe9 caf\xe9", r"not UTF-8 text \(byte 0xe9\)"),
        (b"caf\xc3", r"not UTF-8 text \(byte 0xc3\)"),
        (b"PK\0\0 a a", "zero bytes"),
        (b"a" * (3 << 20), "has a word of over 1048576 letters"),
    ],
)
def test_texts_that_are_refused(tmp_path, content, match):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "text", tmp_path, min_count=2)
    assert not list(tmp_path.glob("*.ids*")) and not list(tmp_path.glob("*.vocabulary"))


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_packed_files_that_are_refused(tmp_path, ending):
    path = tmp_path / f"text{ending}"
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}[ending](b"a b " * 1000)[:-9])
    with pytest.raises(ValueError, match="cut off or damaged"):
        read(path, tmp_path, min_count=1)
    path.write_bytes(b"a b " * 1000)
    with pytest.raises(ValueError, match="cut off or damaged"):
        read(path, tmp_path, min_count=1)


def test_memory_in_words():
    for wrong in ("", "4 apples", "-1GB", "GB"):
        with pytest.raises(ValueError, match="write for example 4GB"):
            reading.bytes_of(wrong)
    with pytest.raises(ValueError, match="hold no two words"):
        reading.largest_vocabulary(math.inf, 100)


def test_files_of_word2vec(tmp_path):
    """Parsed by what the format says: a header, then a word, a space and its numbers."""
    found = vectors("the über x")
    for ending in (".txt", ".bin", ".npz"):
        found.save(tmp_path / f"words{ending}")
    lines = (tmp_path / "words.txt").read_text("utf-8").splitlines()
    assert lines[0] == "3 6" and len(lines) == 4
    for line, word, vector in zip(lines[1:], found.words, found.vectors, strict=True):
        name, *numbers = line.split(" ")
        assert name == word and (np.array(numbers, np.float32) == vector).all()
    content = (tmp_path / "words.bin").read_bytes()
    head, _, rest = content.partition(b"\n")
    assert head == b"3 6"
    for word, vector in zip(found.words, found.vectors, strict=True):
        name, _, rest = rest.partition(b" ")
        assert name.decode() == word and (np.frombuffer(rest[:24], "<f4") == vector).all()
        assert rest[24:25] == b"\n"
        rest = rest[25:]
    assert rest == b""
    again = Embeddings.load(tmp_path / "words.npz")
    assert again.words == found.words and (again.vectors == found.vectors).all()
    assert (again.counts == found.counts).all()
    with pytest.raises(ValueError, match="ends in none of .txt, .bin, .npz"):
        found.save(tmp_path / "words.csv")
    for name, match in (("words.txt", "holds no word vectors"), ("none.npz", "There is no file")):
        with pytest.raises(ValueError, match=match):
            Embeddings.load(tmp_path / name)


def test_neighbours():
    found = vectors("a b c d e")
    scaled = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    cosines = dict(zip("bcde", (scaled @ scaled[0])[1:].tolist(), strict=True))
    near = found.nearest("a", 3)
    assert [word for word, _ in near] == sorted(cosines, key=lambda w: -cosines[w])[:3]
    np.testing.assert_allclose([x for _, x in near], [cosines[w] for w, _ in near], rtol=1e-5)
    with pytest.raises(ValueError, match="no word 'z': known are a, b"):
        found.nearest("z")
    with pytest.raises(ValueError, match="no word 'queen': did you mean queens?"):
        vectors("queens a").nearest("queen")


def test_analogies_against_the_definition(monkeypatch):
    monkeypatch.setattr("widthwise.tasks.words.analogies.BLOCK", 7)
    rng = np.random.default_rng(1)
    found = vectors(" ".join(f"w{k}" for k in range(30)), width=4)
    drawn: Any = [tuple(f"W{k}" for k in rng.choice(33, 4)) for _ in range(400)]
    questions = tuple(Question("drawn", words) for words in drawn)
    answers = Analogies(questions)(found)
    scaled = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    wanted = {}
    for number, words in enumerate(drawn):
        a, b, c, d = (int(word[1:]) for word in words)
        if max(a, b, c, d) < 30:
            scores = scaled @ (scaled[b] - scaled[a] + scaled[c])
            scores[[a, b, c]] = -np.inf
            wanted[number] = scores.argmax() == d
    assert answers.asked.tolist() == list(wanted)
    assert answers.correct.tolist() == list(wanted.values())
    assert 0 < answers.correct.sum() < len(wanted)


def test_analogies_of_words_in_two_cases_and_none_known():
    found = vectors("The the cat dog")
    assert Analogies((Question("", ("the", "cat", "CAT", "dog")),)).asked(found.words)[1].tolist() \
        == [[0, 2, 2, 3]]  # fmt: skip
    answers = Analogies((Question("", ("the", "cat", "dog", "unknown")),))(found)
    assert len(answers.asked) == len(answers.correct) == 0


def test_questions(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text(QUESTIONS)
    found = read_questions(path)
    assert [q.section for q in found] == ["city-in-state", "city-in-state", "family"]
    for content, match in (
        (b"a b c\n", "Line 1 of .* has 3 words"),
        (b": family\n\n", "has no questions"),
        (b"\xff", "not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read_questions(path)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_questions(tmp_path / "nowhere")


def test_gap_is_paired():
    rng = np.random.default_rng(0)
    common = rng.random(4000) < 0.5
    better = common | (rng.random(4000) < 0.02)
    found = gap(better[None], common[None])
    difference = better.astype(float) - common
    assert found.mean == pytest.approx(difference.mean())
    assert found.error == pytest.approx(difference.std(ddof=1) / 4000**0.5)
    assert found.mean > 2 * found.error  # which unpaired errors, of 0.011, would not resolve
    assert gap(common[None], common[None]) == (0.0, 0.0)


def test_components_are_scikit_learns(rng):
    rows = rng.normal(size=(12, 5)) * [5, 3, 1, 1, 1]
    points, tied = components(rows, seed=0)
    wanted = PCA(2).fit_transform(rows)
    np.testing.assert_allclose(np.abs(points), np.abs(wanted), rtol=1e-8)
    assert not tied


def test_names_of_cities_and_states(tmp_path):
    (tmp_path / "q").write_text(QUESTIONS + ": city-in-state\nTexas Ohio Boston Ohio\n")
    found = vectors("ohio the texas boston chicago georgia dallas")
    picture = CitiesAndStates(read_questions(tmp_path / "q"))
    cities, states = picture.names(found.words)
    assert [found.words[k] for k in cities] == ["boston", "chicago", "dallas"]
    assert [found.words[k] for k in states] == ["ohio", "georgia"]  # texas is named as both
    plane = picture(found, "width 6")
    assert plane is not None and plane.is_state.tolist() == [False] * 3 + [True] * 2
    assert picture(vectors("ohio the boston"), "") is None


def test_kernel_limit_of_the_picture_is_chance():
    names = [f"c{k}" for k in range(40)] + [f"s{k}" for k in range(40)]
    lines = tuple(
        Question("city-in-state", (f"c{k}", f"s{k}", f"c{k + 1}", f"s{k + 1}")) for k in range(39)
    )
    picture = CitiesAndStates(lines)
    plane = picture.kernel_limit(tuple(names), "limit")
    assert plane is not None and plane.tied and abs(plane.accuracy - 0.5) < 0.03
    whole = picture(Embeddings(tuple(names), np.eye(80, dtype=np.float32), np.arange(80)), "U = I")
    assert whole is not None and (abs(whole.points - plane.points) < 1e-6).all()
    other = CitiesAndStates(lines, seed=1).kernel_limit(tuple(names), "limit")
    assert other is not None and abs(other.points - plane.points).max() > 0.1
    told = np.where(plane.is_state, 1, -1)[:, None] * np.array([[3.0, 0.0]])
    assert nearest_centroid(told + 0.1 * plane.points, plane.is_state) == 1.0
