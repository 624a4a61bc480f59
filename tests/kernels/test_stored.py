"""Kernel matrices in tiles on disk: whole after any kill, and refused where they do not fit."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from widthwise.kernels import ComputedKernel, StoredKernel, kernel_matrix, stored
from widthwise.network import Dense, Readout, Relu

NET = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
X = np.random.default_rng(0).normal(size=(50, 7))


def made(folder, net=NET, x=X, edge=16, **settings):
    return StoredKernel.of(net, x, folder, which="ntk", edge=edge, **settings)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_tiles_are_those_of_the_matrix(tmp_path, precision):
    found = made(tmp_path / "new" / "folder", precision=precision)
    whole = kernel_matrix(NET, X, which="ntk", precision=precision)
    assert found.missing() == []
    upper = found.upper()
    np.testing.assert_allclose(np.triu(upper), np.triu(whole), rtol=1e-6)
    assert upper.dtype == whole.dtype
    right = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_allclose(found.product(right), whole @ right, rtol=1e-5, atol=1e-5)
    computed = ComputedKernel(NET, X, which="ntk", precision=precision)
    np.testing.assert_allclose(computed.product(right), whole @ right, rtol=1e-5, atol=1e-5)


def test_what_is_done_stays(tmp_path, monkeypatch):
    first = made(tmp_path).upper()
    for name in ("0-1", "2-2"):
        (tmp_path / "done" / name).unlink()
    asked, compute = [], stored.compute_tile

    def counted(folder, i, j):
        asked.append((i, j))
        compute(folder, i, j)

    monkeypatch.setattr(stored, "compute_tile", counted)
    again = made(tmp_path)
    assert asked == [(0, 1), (2, 2)]
    np.testing.assert_array_equal(np.triu(again.upper()), np.triu(first))


def test_a_tile_that_is_done_is_not_computed_again(tmp_path, monkeypatch):
    made(tmp_path)
    monkeypatch.setattr(stored, "kernel_block", None)
    stored.compute_tile(str(tmp_path), 0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"net": Dense() >> Relu() >> Readout()},
        {"x": X + 1e-12},
        {"x": X[:40]},
        {"precision": "float64"},
        {"edge": 20},
    ],
    ids=str,
)
def test_other_kernels_are_refused(tmp_path, change):
    made(tmp_path)
    with pytest.raises(ValueError, match="give an empty folder"):
        made(tmp_path, **change)


def test_damage_is_told(tmp_path):
    found = made(tmp_path)
    chunk = tmp_path / "kernel.zarr" / "kernel" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(ValueError, match="is cut off: remove done/"):
        found.upper()
    (tmp_path / "spec").write_bytes(b"widthwise kernel store\n\x01")
    with pytest.raises(ValueError, match="cut off or damaged"):
        made(tmp_path)
    (tmp_path / "spec").unlink()
    assert made(tmp_path).missing() == []  # a store without its spec was never whole


def test_folders_of_other_things_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="holds other files"):
        made(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_unknown_schedulers_are_told(tmp_path):
    with pytest.raises(ValueError, match="No Dask scheduler answers at 'nowhere'"):
        made(tmp_path, cluster="nowhere")


CODE = """
import sys, numpy as np
from widthwise.kernels import StoredKernel, stored
from widthwise.network import Dense, Readout, Relu

if __name__ == "__main__":
    x = np.random.default_rng(0).normal(size=(3000, 20))
    net = Dense(bias_multiplier=0.0) >> Relu() >> Readout(bias_multiplier=0.0)
    StoredKernel.of(net, x, sys.argv[1], which="ntk", edge=200, cluster=sys.argv[2] or None)
"""


def started(tmp_path, cluster):
    script = tmp_path / "run.py"
    script.write_text(CODE)
    with (tmp_path / "stderr").open("wb") as told:
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "store"), cluster], stderr=told
        )


def tiles_done(tmp_path):
    folder = tmp_path / "store" / "done"
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} if folder.exists() else {}


def wait_for(tmp_path, count, process):
    while len(tiles_done(tmp_path)) < count:
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.005)


def held(tmp_path):
    found = StoredKernel(tmp_path / "store")
    net = Dense(bias_multiplier=0.0) >> Relu() >> Readout(bias_multiplier=0.0)
    whole = kernel_matrix(net, found.rows[:], which="ntk", precision="float32")
    assert found.missing() == []
    np.testing.assert_allclose(np.triu(found.upper()), np.triu(whole), atol=2e-6 * whole.max())


def test_killed_and_resumed(tmp_path):
    first = started(tmp_path, "")
    wait_for(tmp_path, 20, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = tiles_done(tmp_path)
    assert 20 <= len(before) < 120
    second = started(tmp_path, "")
    assert second.wait() == 0, (tmp_path / "stderr").read_text()
    after = tiles_done(tmp_path)
    assert len(after) == 120
    assert {name: after[name] for name in before} == before  # none was written twice
    held(tmp_path)


@pytest.mark.slow
def test_a_worker_is_killed(tmp_path):
    """Of two Dask workers; the other one and its successor end the job."""
    process = started(tmp_path, "local")
    wait_for(tmp_path, 40, process)
    before = tiles_done(tmp_path)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True
    ).stdout.split()
    assert children
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait() == 0, (tmp_path / "stderr").read_text()
    after = tiles_done(tmp_path)
    assert len(after) == 120
    assert {name: after[name] for name in before} == before
    held(tmp_path)
