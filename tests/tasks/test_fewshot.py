"""Reading drawings, drawing tasks, training over them: stopped, resumed, on the command line."""

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import widthwise.tasks.fewshot as task
from widthwise import store
from widthwise.cli import main
from widthwise.data.base import DataError
from widthwise.problem import Diverged
from widthwise.tasks.fewshot import FewShot, LinearNetwork, Study, read_drawings, split
from widthwise.tasks.fewshot.drawings import SIDE, shrunk
from widthwise.tasks.fewshot.finding import accuracy_of, finding_of
from widthwise.tasks.fewshot.setting import Numbers
from widthwise.tasks.fewshot.train import AGAIN, RUN, meta_train

SMALL = FewShot(
    way=3, tasks=4, epochs=3, batches=4, validation_tasks=12, test_tasks=20, test_steps=3
)  # fmt: skip
ALPHABETS, CHARACTERS, DRAWERS = 6, 4, 4


def strokes(alphabet: int, character: int, drawer: int) -> np.ndarray:
    """An ink mask of 105 x 105: bars that the character sets and the drawer moves a little."""
    rng = np.random.default_rng([alphabet, character])
    mask = np.zeros((105, 105), np.uint8)
    for top, left in rng.integers(5, 75, (3, 2)) + drawer:
        mask[top : top + 20, left : left + 6] = 1
    return mask


def png(mask: np.ndarray) -> bytes:
    """As Omniglot is published: one bit a pixel, ink is black."""
    file = io.BytesIO()
    Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)).convert("1").save(file, "PNG")
    return file.getvalue()


def every():
    for alphabet in range(ALPHABETS):
        part = "images_background" if alphabet < 4 else "images_evaluation"
        for character in range(CHARACTERS):
            for drawer in range(DRAWERS):
                inside = f"Alphabet_{alphabet}/character{character + 1:02d}/{drawer:02d}.png"
                yield part, inside, strokes(alphabet, character, drawer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("omniglot")
    for part, inside, mask in every():
        path = home / part / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(mask))
    (home / "images_background" / ".DS_Store").write_bytes(b"")
    return home


@pytest.fixture
def drawings(folder):
    return read_drawings(folder)


def test_folder_zips_and_arrays_are_read_alike(folder, drawings, tmp_path):
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as archive:
            for own, inside, mask in every():
                if own == part:
                    archive.writestr(f"{part}/{inside}", png(mask))
            archive.writestr(f"__MACOSX/{part}/A/character01/._01.png", b"")
    zipped = read_drawings(tmp_path)
    packed = {}
    for part, first, last in (("background", 0, 4), ("evaluation", 4, ALPHABETS)):
        rows = [(a, c, d) for a in range(first, last) for c in range(CHARACTERS)
                for d in range(DRAWERS)]  # fmt: skip
        masks = np.stack([strokes(*row).ravel() for row in rows])
        packed[f"{part}_images"] = np.packbits(masks, axis=1)
        packed[f"{part}_character"] = np.array([CHARACTERS * (a - first) + c for a, c, _ in rows])
        packed[f"{part}_alphabet"] = np.array([a - first for a, _, _ in rows])
        packed[f"{part}_alphabet_names"] = np.array([f"Alphabet_{a}" for a in range(first, last)])
    np.savez(tmp_path / "arrays.npz", **packed)
    arrays = read_drawings(tmp_path / "arrays.npz")
    for other in (zipped, arrays):
        assert other.classes == drawings.classes
        np.testing.assert_array_equal(other.ink, drawings.ink)
        np.testing.assert_array_equal(other.first, drawings.first)
    one = read_drawings(tmp_path / "images_evaluation.zip")
    assert len(one.classes) == 2 * CHARACTERS
    alone = read_drawings(folder / "images_evaluation")
    np.testing.assert_array_equal(one.ink, alone.ink)


def test_ink_is_one_and_turns_are_turns(drawings):
    assert drawings.classes[0] == "images_background/Alphabet_0/character01"
    image = drawings.pixels(np.array([0]), np.array([0]))[0].reshape(SIDE, SIDE)
    np.testing.assert_array_equal(255 * image, shrunk(255 * strokes(0, 0, 0)).reshape(SIDE, SIDE))
    assert image.max() > 0.9 and image.mean() == pytest.approx(strokes(0, 0, 0).mean(), abs=0.01)
    for turns in range(4):
        turned = drawings.pixels(np.array([0]), np.array([turns]))[0]
        np.testing.assert_array_equal(turned.reshape(SIDE, SIDE), np.rot90(image, turns))


def test_tasks_have_different_classes_and_drawings(drawings):
    train, validation, test = parts = split(drawings, SMALL)
    assert sorted(np.concatenate([part.classes for part in parts])) == list(range(24))
    assert [part.orientations for part in parts] == [4, 4, 1]
    alphabets = [{drawings.alphabets[c] for c in part.classes} for part in parts]
    assert len(alphabets[0] & alphabets[2]) <= 1 and len(alphabets[2]) < ALPHABETS
    setting = FewShot(way=3, shot=2, queries=1, tasks=50)
    episodes = train.draw(setting, 50, (0, 3))
    again = train.draw(setting, 50, (0, 3))
    assert all(np.array_equal(a, b) for a, b in zip(episodes, again, strict=True))
    assert not np.array_equal(train.draw(setting, 50, (0, 4)).support, episodes.support)
    assert set(episodes.turns.ravel()) == {0, 1, 2, 3}
    for support, queries, turns in zip(*episodes, strict=True):
        rows = np.concatenate([support, queries], axis=1)
        classes = np.searchsorted(drawings.first, rows, side="right") - 1
        assert (classes == classes[:, :1]).all() and set(classes[:, 0]) <= set(train.classes)
        assert all(len(set(own)) == 3 for own in rows)
        assert len(set(zip(classes[:, 0], turns, strict=True))) == 3
    assert not validation.draw(setting, 5, (0,)).turns.max() > 3
    assert not test.draw(setting, 5, (0,)).turns.any()


def refused(path, *words):
    with pytest.raises(DataError) as told:
        read_drawings(path)
    assert all(word in str(told.value) for word in words), told.value


def test_what_cannot_be_read_is_named(tmp_path, drawings):
    refused(tmp_path / "nowhere", "does not exist", "images_background")
    refused(tmp_path, "has no drawings")
    place = tmp_path / "images_background" / "Greek" / "character01"
    place.mkdir(parents=True)
    (place / "1.png").write_bytes(png(strokes(0, 0, 0)))
    refused(tmp_path, "Greek/character01", "1 drawing", "at least 2")
    (place / "2.png").write_bytes(b"no image")
    refused(tmp_path, "2.png", "cannot be read")
    (place / "2.png").write_bytes(png(strokes(0, 0, 0))[:60])
    refused(tmp_path, "2.png", "cannot be read")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    refused(tmp_path / "broken.zip", "no zip file")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    refused(tmp_path / "broken.npz", "no NPZ file")
    np.savez(tmp_path / "other.npz", a=1)
    refused(tmp_path / "other.npz", "background_images")
    with pytest.raises(DataError, match="lower way"):
        split(drawings, FewShot(way=20))
    with pytest.raises(DataError, match="lower shot or queries"):
        split(drawings, FewShot(way=3, shot=4))


def test_training_learns_and_resumes_where_it_stood(drawings, tmp_path):
    parts = split(drawings, SMALL)
    learner = LinearNetwork(7, Numbers(0.2, 1.0, 0.3, 1.0))
    done = []
    whole = meta_train(learner, parts, SMALL, name="width 7", seed=1, advance=done.append)
    assert sum(done) == 12 and whole.losses[-1] < whole.losses[0]
    path, calls = tmp_path / "part", []

    class Stop(Exception):
        pass

    def stop(batches):
        calls.append(batches)
        if len(calls) == 8:
            raise Stop

    with pytest.raises(Stop):
        meta_train(learner, parts, SMALL, name="width 7", seed=1, checkpoint=path, advance=stop)
    resumed = meta_train(learner, parts, SMALL, name="width 7", seed=1, checkpoint=path)
    for one, other in zip(whole.state, resumed.state, strict=True):
        assert one.tobytes() == other.tobytes()
    assert whole.losses.tobytes() == resumed.losses.tobytes()
    assert whole.accuracy == resumed.accuracy


def test_divergence_is_said(drawings):
    wild = LinearNetwork(7, Numbers(1e200, 1.0, 0.3, 1.0))
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="width 7"):
        meta_train(wild, split(drawings, SMALL), SMALL, name="width 7")


def test_a_study_and_its_finding(drawings, tmp_path):
    study = Study((2, math.inf), ("linear", "relu-ntk"), 2, SMALL)
    said: list[str] = []
    found = study.run(drawings, tmp_path, say=said.append)
    assert [line.split(":")[0] for line in said] == [member.name for member in study.members]
    assert len(list(tmp_path.glob("*.fewshot"))) == 8 and not list(tmp_path.glob("*.part"))
    again = study.run(drawings, tmp_path)
    for member, runs in found.items():
        assert [run.accuracy for run in runs] == [run.accuracy for run in again[member]]
    finding = finding_of(study, found)
    assert [row[0] for row in finding.table.rows] == [member.name for member in study.members]
    runs = found[study.members[1]]
    mean, error = accuracy_of(runs)
    assert mean == pytest.approx(np.mean([run.accuracy for run in runs]))
    assert error == pytest.approx(abs(runs[0].accuracy - runs[1].accuracy) / 2)
    assert accuracy_of(runs[:1])[1] == runs[0].error
    with pytest.raises(ValueError, match="choose among linear"):
        Study(kernels=("gauss",))


def test_command_line(folder, tmp_path, monkeypatch, capsys):
    few = dict(tasks=2, batches=2, validation_tasks=4, test_tasks=4)
    monkeypatch.setattr(task, "FewShot", lambda **given: FewShot(**(few | given)))
    words = ["fewshot", str(folder), "--widths", "2,inf", "--kernels", "linear", "--seeds", "1"]
    words += ["--epochs", "2", "--way", "3", "--out", str(tmp_path / "out")]
    main([*words, "--json"])
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert printed == written and "<svg" in (tmp_path / "out" / "report.html").read_text()
    rows = printed["findings"][0]["table"]["rows"]
    assert [row[0] for row in rows] == ["width 2", "width inf", "kernel linear"]
    main(words)
    assert "Report:" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["fewshot", str(tmp_path / "nowhere")])
    assert stop.value.code == 2 and "does not exist" in capsys.readouterr().err


def test_interrupted_command_says_what_is_kept(folder, tmp_path, monkeypatch, capsys):
    few = dict(tasks=2, batches=2, validation_tasks=4, test_tasks=4)
    monkeypatch.setattr(task, "FewShot", lambda **given: FewShot(**(few | given)))
    words = ["fewshot", str(folder), "--widths", "3", "--kernels", "", "--seeds", "1"]
    words += ["--epochs", "3", "--way", "3", "--out", str(tmp_path / "out")]
    step, calls = LinearNetwork.step, []

    def stopped(*given):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*given)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stop:
        patched.setattr(LinearNetwork, "step", stopped)
        main(words)
    assert stop.value.code == 130 and "the same command resumes" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "runs").glob("*.part"))) == 1
    assert not (tmp_path / "out" / "report.html").exists()
    main(words)
    assert "width 3: " in capsys.readouterr().out


KILLED = """
import sys
from widthwise.tasks.fewshot import FewShot, Study, read_drawings
from pathlib import Path
setting = FewShot(way=3, tasks=4, epochs=40, batches=4, validation_tasks=12, test_tasks=20)
Study((50,), (), 1, setting).run(read_drawings(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(folder, tmp_path):
    """SIGKILL five times at random moments; the end is the same to the last bit."""
    command = [sys.executable, "-c", KILLED, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment)
    rng = np.random.default_rng()
    kills, tries = 0, 0
    while kills < 5 and tries < 20:
        process = subprocess.Popen([*command, str(tmp_path / "parts")], env=environment)
        moment, tries = rng.uniform(1.0, 4.0), tries + 1
        time.sleep(moment)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
            print(f"killed after {moment:.3f} s")
        process.wait()
    subprocess.run([*command, str(tmp_path / "parts")], check=True, env=environment)
    whole, parts = (
        store.load(next((tmp_path / name).glob("*.fewshot")), RUN, AGAIN)
        for name in ("whole", "parts")
    )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole.state, parts.state, strict=True))
    assert whole.losses.tobytes() == parts.losses.tobytes()
