"""A kernel matrix in tiles by two Dask workers, one of which is killed a third of the way, against
this process alone: entries a CPU second and core, and whether every tile is right and once written.

    python benchmarks/cluster.py
"""

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from widthwise import Dense, Readout, Relu
from widthwise.kernels import StoredKernel, kernel_matrix
from widthwise.memory import cores

COLUMNS = 784
PLAIN = {"bias_multiplier": 0.0}
NET = Dense(**PLAIN) >> Relu() >> Dense(**PLAIN) >> Relu() >> Readout(**PLAIN)


def stored(x, folder: Path, cluster: str | None, edge: int) -> float:
    """Seconds it takes to build the store."""
    began = time.perf_counter()
    StoredKernel.of(NET, x, folder, which="ntk", edge=edge, cluster=cluster)
    return time.perf_counter() - began


def markers(folder: Path) -> dict[str, int]:
    done = folder / "done"
    return {p.name: p.stat().st_mtime_ns for p in done.iterdir()} if done.exists() else {}


def workers() -> list[int]:
    """The processes of Dask's workers: those children of ours that import distributed."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, ValueError):  # it has ended meanwhile
            continue
    return found


def kill_one(folder: Path, after: int, told: dict) -> None:
    """Kills a worker once so many tiles are done."""
    while len(markers(folder)) < after:
        time.sleep(0.01)
    told["before"], told["killed"] = markers(folder), workers()[-1]
    os.kill(told["killed"], signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--edge", type=int, default=2000)
    asked = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(asked.rows, COLUMNS))
    blocks = -(-asked.rows // asked.edge)
    tiles, entries = blocks * (blocks + 1) // 2, asked.rows**2 / 2
    home = Path(tempfile.mkdtemp())
    alone = stored(x, home / "alone", None, asked.edge)
    whole = stored(x, home / "both", "local", asked.edge)
    told: dict = {}
    killer = threading.Thread(target=kill_one, args=(home / "killed", tiles // 3, told))
    killer.start()
    killed = stored(x, home / "killed", "local", asked.edge)
    killer.join()
    after = markers(home / "killed")
    twice = [name for name, at in told["before"].items() if after[name] != at]
    found = StoredKernel(home / "killed")
    exact = kernel_matrix(NET, x, which="ntk", precision="float32")
    wrong = max(
        float(np.abs(found.tile(a, b) - exact[a, b]).max())
        for a in found.blocks() for b in found.blocks() if b.start >= a.start
    ) / float(exact.max())  # fmt: skip
    shutil.rmtree(home)
    print(f"{tiles} tiles of {asked.rows:,} rows, {cores()} cores; "
          f"threads of one process: {alone:.1f} s, {entries / alone / 1e6:.0f} million entries a second")  # fmt: skip  # noqa: E501
    print(f"Dask, {cores()} workers: {whole:.1f} s with the start of the cluster, "
          f"{alone / whole:.2f} of that")  # fmt: skip
    print(f"one killed after {len(told['before'])} tiles: {killed:.1f} s, {alone / killed:.2f}; "
          f"{len(after)} tiles done, {len(twice)} written twice, largest error {wrong:.1e}")  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main()
