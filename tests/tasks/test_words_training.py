"""Training of word vectors: against the reference, against the rule written plainly, on the way."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from widthwise.tasks.words import BagOfWords, Threads, from_words, train
from widthwise.tasks.words.accelerated import Batches
from widthwise.tasks.words.events import Cursor, Draws, Events, draw
from widthwise.tasks.words.kernel import Columns
from widthwise.tasks.words.machine import AbstractMachine, State, start

ORACLE = Path(__file__).parents[1] / "oracle" / "rich" / "word2vec.npz"
SMALL = BagOfWords(window=3, negative=5, sample=0.05, sentence=40, epochs=2)


def text(length: int, vocabulary: int, seed: int = 0) -> list[str]:
    """Words of six topics, each with its own half of the vocabulary; frequencies as Zipf's."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, vocabulary + 1)
    topics = [frequency * (rng.random(vocabulary) < 0.5) for _ in range(6)]
    found = []
    while len(found) < length:
        topic = topics[rng.integers(6)]
        found += rng.choice(vocabulary, 50, p=topic / topic.sum()).tolist()
    return [f"w{number}" for number in found[:length]]


def plainly(state: State, events: Events, weight_decay: float) -> tuple[np.ndarray, np.ndarray]:
    """The rule, word by word, in float64."""
    inputs, outputs = (table.astype(np.float64) for table in state)
    for context, targets, rate in zip(*events, strict=True):
        context = context[context >= 0]
        h, e = inputs[context].mean(axis=0), np.zeros(inputs.shape[1])
        for place, target in enumerate(targets):
            if target >= 0:
                g = rate * ((place == 0) - 1 / (1 + np.exp(-h @ outputs[target])))
                e += g * outputs[target]
                outputs[target] = (1 - rate * weight_decay) * outputs[target] + g * h
        for word in context:
            inputs[word] = (1 - rate * weight_decay) * inputs[word] + e / len(context)
    return inputs, outputs


def some_events(vocabulary: int, positions: int, seed: int = 0, rate: float = 0.5) -> Events:
    """Events with many repeats, and gaps."""
    rng = np.random.default_rng(seed)
    contexts = rng.integers(vocabulary, size=(positions, 6), dtype=np.int32)
    contexts[:, 1:][rng.random((positions, 5)) < 0.3] = -1
    targets = rng.integers(vocabulary, size=(positions, 7), dtype=np.int32)
    targets[:, 1:][targets[:, 1:] == targets[:, :1]] = -1
    return Events(contexts, targets, np.full(positions, rate))


def test_reference_events():
    """The rule of the authors' C code on 26,000 events, with its table of the sigmoid."""
    with np.load(ORACLE) as file:
        contexts, targets = (file[name].astype(np.int32) for name in ("contexts", "targets"))
        events = Events(contexts, targets, np.full(len(contexts), 0.05))
        machine = Threads(threads=1, table=file["table"])
        state = machine.follow(start(195, math.inf, 0), events, BagOfWords())
        assert abs(state.inputs[:, :195] - file["inputs"]).max() < 1e-3
        assert abs(state.outputs[:, :195] - file["outputs"]).max() < 1e-3
        assert abs(file["inputs"] - np.eye(195)).max() > 0.5


@pytest.mark.parametrize("width", [5, 64, 100, math.inf])
def test_rule(width):
    events = some_events(11, 200)
    wanted = plainly(start(11, width, 3), events, weight_decay=0.1)
    state = Threads(threads=1).follow(start(11, width, 3), events, BagOfWords(weight_decay=0.1))
    for found, table in zip(state, wanted, strict=True):
        np.testing.assert_allclose(found, table, atol=2e-5)
    columns = 11 if width == math.inf else width
    assert not state.inputs[:, columns:].any() and not state.outputs[:, columns:].any()


def test_any_number_of_threads_gives_the_same():
    events = some_events(700, 300)
    states = [
        Threads(threads=threads).follow(start(700, math.inf, 0), events, SMALL)
        for threads in (1, 2, 3, 5)
    ]
    assert Columns.of(700).slices > 5
    for state in states[1:]:
        assert (state.inputs == states[0].inputs).all()
        assert (state.outputs == states[0].outputs).all()


def test_batches_of_one_follow_the_rule_where_no_word_repeats():
    events = some_events(40, 64)
    for row in (*events.targets, *events.contexts):
        row[[word in row[:place] for place, word in enumerate(row)]] = -1
    wanted = plainly(start(40, 16, 0), events, weight_decay=0.1)
    machine = Batches(batch=1)
    held = machine.begin(start(40, 16, 0))
    held = machine.follow(held, events, BagOfWords(weight_decay=0.1))
    for found, table in zip(machine.state(held), wanted, strict=True):
        np.testing.assert_allclose(found, table, atol=2e-5)


def test_bias_of_batches():
    """Relative to how far the tables move; of first order in the batch."""
    corpus = from_words(text(3000, 100), min_count=5)
    settings = BagOfWords(sample=1e-2, sentence=500, negative=5)
    exact = train(corpus, 64, settings, machine=Threads(threads=1))
    moved = np.linalg.norm(exact.inputs - start(len(corpus.words), 64, 0).inputs)
    bias = {}
    for batch in (16, 64):
        found = train(corpus, 64, settings, machine=Batches(batch=batch))
        assert found.positions == exact.positions
        bias[batch] = np.linalg.norm(found.inputs - exact.inputs) / moved
    assert bias[64] < 0.1
    assert 2 < bias[64] / bias[16] < 8


def test_order_of_events_knows_no_width_and_no_piece():
    corpus = from_words(text(3000, 30))
    draws = Draws.of(corpus.counts, SMALL.sample)
    whole, end = draw(corpus.ids, draws, SMALL, 7, Cursor(), 10**3)
    cursor, pieces = Cursor(), []
    while cursor.epoch < SMALL.epochs:
        piece, cursor = draw(corpus.ids, draws, SMALL, 7, cursor, 3)
        pieces.append(piece)
    for x, y in zip(whole, zip(*pieces, strict=True), strict=True):
        assert (x == np.concatenate(y)).all()
    assert cursor == end and end.read == SMALL.epochs * len(corpus.ids)
    assert len(whole.rates) % SMALL.sentence == 0
    half = len(whole.rates) // 2
    assert (whole.targets[: half // 2] != whole.targets[half : half + half // 2]).any()
    other, _ = draw(corpus.ids, draws, SMALL, 8, Cursor(), 10**3)
    assert len(other.rates) != len(whole.rates) or (other.targets != whole.targets).any()


def test_windows_negatives_and_sub_sampling():
    """Frequencies of what is drawn, within 5 standard deviations of their chances."""
    corpus = from_words(text(200_000, 20))
    settings = BagOfWords(window=4, negative=5, sample=0.05, sentence=1000)
    draws = Draws.of(corpus.counts, settings.sample)
    events, cursor = draw(corpus.ids, draws, settings, 0, Cursor(), 10**3)
    positions = len(events.rates)

    def near(count, chance, trials):
        return abs(count - trials * chance) < 5 * np.sqrt(trials * chance * (1 - chance)) + 1

    words = events.targets[:, 0]
    keep = draws.keep / 2**32
    dropped = settings.sentence  # at most: the last partial sentence
    for word, count in enumerate(corpus.counts):
        assert abs((words == word).sum() - count * keep[word]) < 5 * np.sqrt(count) + dropped
    full = (events.contexts >= 0).sum(axis=1)
    for reach in range(1, 5):
        assert near((full == 2 * reach).sum(), 0.25, positions * 0.998)
    chance = corpus.counts**0.75 / (corpus.counts**0.75).sum()
    negatives = events.targets[:, 1:]
    assert (negatives != words[:, None]).all()
    for word in range(len(chance)):
        others = words != word
        drawn = (negatives[others] == word).sum()
        assert near(drawn, chance[word], negatives[others].size)


def test_contexts_are_the_words_around():
    corpus = from_words([f"w{number}" for number in range(50)])
    settings = BagOfWords(window=3, sample=1e6, sentence=50)
    draws = Draws.of(corpus.counts, settings.sample)
    events, _ = draw(corpus.ids, draws, settings, 0, Cursor(), 1)
    assert (events.targets[:, 0] == corpus.ids).all()
    for place, context in enumerate(events.contexts):
        found = context[context >= 0]
        reach = max(abs(np.flatnonzero(corpus.ids == word)[0] - place) for word in found)
        around = corpus.ids[max(0, place - reach) : place + reach + 1]
        assert found.tolist() == [word for word in around if word != corpus.ids[place]]


def test_step_size_falls_every_half_million_words():
    corpus = from_words(["a", "b"] * 600_000)
    settings = BagOfWords(sample=1e6, epochs=2, sentence=100_000, negative=1, window=1)
    draws = Draws.of(corpus.counts, settings.sample)
    events, _ = draw(corpus.ids, draws, settings, 0, Cursor(), 100)
    rates = events.rates[::100_000]
    done = np.array([0] * 6 + [6] * 6 + [12] * 6 + [18] * 6) / 24
    np.testing.assert_allclose(rates, 0.05 * (1 - done), rtol=1e-5)


class _Stopping(AbstractMachine):
    """Presses Ctrl-C during the third piece of work."""

    calls = 0

    @property
    def rule(self):
        return "sequential"

    def begin(self, state):
        return state

    def state(self, held):
        return held

    def follow(self, held, events, settings):
        self.calls += 1
        if self.calls == 3:
            signal.raise_signal(signal.SIGINT)
        return Threads(threads=1).follow(held, events, settings)


def test_interruption_keeps_and_resumes(tmp_path):
    corpus = from_words(text(4000, 30))
    path = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt, match="kept, and the same call resumes"):
        train(corpus, math.inf, SMALL, machine=_Stopping(), checkpoint=path)
    resumed = train(corpus, math.inf, SMALL, machine=Threads(threads=2), checkpoint=path)
    whole = train(corpus, math.inf, SMALL, machine=Threads(threads=1))
    assert 0 < resumed.positions < whole.positions
    assert (resumed.inputs == whole.inputs).all() and (resumed.outputs == whole.outputs).all()
    again = train(corpus, math.inf, SMALL, checkpoint=path)
    assert again.positions == 0 and (again.inputs == whole.inputs).all()
    with pytest.raises(KeyboardInterrupt, match="is lost"):
        train(corpus, math.inf, SMALL, machine=_Stopping())


def test_interruption_outside_the_main_thread_is_left_alone():
    corpus = from_words(text(400, 30))
    found = []
    work = threading.Thread(target=lambda: found.append(train(corpus, 8, SMALL)))
    work.start()
    work.join()
    assert found[0].positions > 0


def test_checkpoint_of_another_training_and_damage(tmp_path):
    corpus = from_words(text(400, 30))
    path = tmp_path / "kept"
    train(corpus, 8, SMALL, checkpoint=path)
    for other in ({"width": 16}, {"seed": 1}, {"machine": Batches(batch=8)}):
        asked: Any = {"width": 8, "settings": SMALL, "checkpoint": path} | other
        with pytest.raises(ValueError, match="belongs to another training"):
            train(corpus, **asked)
    content = path.read_bytes()
    for place in (len(content) // 3, 2 * len(content) // 3):  # in either table
        bent = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        path.write_bytes(bent)
        with pytest.raises(ValueError, match="is damaged .* delete it"):
            train(corpus, 8, SMALL, checkpoint=path)
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="is damaged .* delete it"):
        train(corpus, 8, SMALL, checkpoint=path)


def test_predictions():
    corpus = from_words(text(2000, 30))
    trained = train(corpus, 16, SMALL)
    events = some_events(len(corpus.words), 5)
    scores = trained.predict(events)
    for context, targets, row in zip(events.contexts, events.targets, scores, strict=True):
        mean = trained.inputs[context[context >= 0]].mean(axis=0)
        wanted = np.where(targets < 0, np.nan, trained.outputs[targets] @ mean)
        np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "asked, match",
    [
        ({"width": 0}, "width 0 is no whole number"),
        ({"width": 2.5}, "width 2.5 is no whole number"),
        ({"settings": BagOfWords(sentence=500)}, "fewer than the 500 of one sentence"),
        ({"settings": BagOfWords(sentence=400, sample=1e-3)}, "After sub-sampling"),
        ({"settings": BagOfWords(sentence=50, sample=1.0, rate=1e30)}, "diverged"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refusals(asked, match):
    with pytest.raises(ValueError, match=match):
        train(from_words(text(400, 30)), **{"width": 8} | asked)


def test_settings_are_refused_when_written():
    wrong: Any
    for wrong in ({"window": 0}, {"negative": 0}, {"sample": 0.0}, {"sentence": 1}, {"rate": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} of BagOfWords"):
            BagOfWords(**wrong)


CHILD = """
import sys
from pathlib import Path
from widthwise.tasks.words import BagOfWords, Threads, from_words, train
corpus = from_words(Path(sys.argv[1]).read_text().split())
settings = BagOfWords(window=3, negative=5, sample=0.05, sentence=500, epochs=int(sys.argv[3]))
print("ready", flush=True)
machine = Threads(threads=1)
train(corpus, settings=settings, machine=machine, checkpoint=sys.argv[2], every=0.0)
"""


def killed(tmp_path, words: list[str], epochs: int, delays: list[float]) -> list[str]:
    """Trains in processes that are killed, then to the end; where each was when it was killed.

    A negative delay waits on until a checkpoint is being written.
    """
    source, kept = tmp_path / "words", tmp_path / "kept"
    source.write_text(" ".join(words))
    command = [sys.executable, "-c", CHILD, str(source), str(kept), str(epochs)]
    log = []
    for delay in delays:
        kept.with_name("kept.part").unlink(missing_ok=True)  # then it shows what the child does
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        end = time.monotonic() + abs(delay)
        while time.monotonic() < end or (delay < 0 and not kept.with_name("kept.part").exists()):
            time.sleep(0.001)
        child.kill()
        assert child.wait() == -signal.SIGKILL, "it had finished: nothing was tested"
        child.stdout.close()
        writing = kept.with_name("kept.part").exists()
        with np.load(kept) if kept.exists() else np.load(ORACLE) as file:
            where = file["cursor"].tolist() if "cursor" in file else "at the start"
        log.append(f"after {abs(delay):.2f} s: {where}{', while writing' if writing else ''}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return log


def check_killed(tmp_path, words, epochs, delays):
    log = killed(tmp_path, words, epochs, delays)
    corpus = from_words(words)
    settings = BagOfWords(window=3, negative=5, sample=0.05, sentence=500, epochs=epochs)
    whole = train(corpus, settings=settings, machine=Threads(threads=1))
    with np.load(tmp_path / "kept") as file:
        kept = file["inputs"], file["outputs"]
    for found, table in zip(kept, (whole.inputs, whole.outputs), strict=True):
        assert (found[:, : table.shape[1]] == table).all()
    return log


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, capsys):
    delays = np.random.default_rng().uniform(0.5, 3.0, size=5) * [1, -1, 1, -1, 1]
    log = check_killed(tmp_path, text(60_000, 800), 60, delays.tolist())
    assert sum("while writing" in line for line in log) >= 1
    with capsys.disabled():
        print("", *log, sep="\n")


@pytest.mark.slow
def test_finite_widths_approach_the_limit(capsys):
    """rms gap of <h, C> on events that were not trained on, in the order of the limit's."""
    words = text(60_000, 200)
    corpus = from_words(words[:50_000])
    place = {word: number for number, word in enumerate(corpus.words)}
    rest = np.array([place[word] for word in words[50_000:] if word in place], np.int32)
    settings = BagOfWords(sample=1e-2, sentence=500, epochs=4)
    draws = Draws.of(corpus.counts, settings.sample)
    held_out, _ = draw(rest, draws, settings, 99, Cursor(), 4)
    widths = (64, 256, 1024, 4096)

    def predicted(width: float) -> np.ndarray:
        alone = Threads(threads=1)  # on a busy machine, threads that meet are slower than one
        runs = [train(corpus, width, settings, seed=seed, machine=alone) for seed in range(2)]
        return np.stack([run.predict(held_out) for run in runs])

    limit = predicted(math.inf)
    gaps = [float(np.sqrt(np.nanmean((predicted(width) - limit) ** 2))) for width in widths]
    slope = np.polyfit(np.log(widths), np.log(gaps), 1)[0]
    size = float(np.sqrt(np.nanmean(limit**2)))
    with capsys.disabled():
        print(f"\nrms of the limit {size:.3f}, gaps {gaps}, exponent {slope:.3f}")
    assert -0.65 < slope < -0.35
    assert size > 10 * gaps[-1]
