"""Symmetric kernel matrices on disk: tiles in a Zarr array, each with a marker when it is done."""

import functools
import itertools
import queue
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from widthwise import store
from widthwise.kernels.matrix import Kernel, checked, kernel_block
from widthwise.kernels.path import STORED, Precision
from widthwise.kernels.workers import workers
from widthwise.network.layer import AbstractLayer
from widthwise.progress import Progress
from widthwise.scaling import NTK, AbstractScaling
from widthwise.solve.symmetric import AbstractSymmetric

EDGE = 4096  # rows of a tile: half a second of work or more, so that handing it out costs nothing
AHEAD = 2  # tiles handed out for each worker
AGAIN = "give an empty folder"


class Spec(NamedTuple):
    """What a store holds, as its file says."""

    network: AbstractLayer
    scaling: AbstractScaling
    which: Kernel
    precision: Precision
    size: int
    edge: int


class StoredKernel(AbstractSymmetric):
    """The kernel matrix of rows against themselves, in a folder; the half that is computed.

    >>> import tempfile
    >>> net = Dense() >> Relu() >> Readout()
    >>> kernel = StoredKernel.of(net, np.eye(3), tempfile.mkdtemp(), which="ntk")
    >>> kernel.product(np.ones((3, 1))).shape
    (3, 1)

    The folder has `kernel.zarr`, a Zarr v3 group with the arrays `rows` and `kernel`, whose chunks
    are the tiles on and above the diagonal; `done`, an empty file for each tile that is whole; and
    `spec`. It is a folder of a file system, which all who compute share.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.spec: Spec = store.load(self.folder / "spec", "kernel store", AGAIN)
        self.size, self.edge = self.spec.size, self.spec.edge
        try:
            group = _zarr().open_group(self.folder / "kernel.zarr", mode="r+")
            self.rows: Any = group["rows"]
            self._tiles: Any = group["kernel"]
        except (OSError, KeyError, ValueError):
            raise ValueError(
                f"The folder {self.folder} lacks parts of its kernel.zarr: {AGAIN}."
            ) from None

    @classmethod
    def of(
        cls,
        network: AbstractLayer,
        x: Num[np.ndarray, "n *s d"],
        folder: str | Path,
        *,
        which: Kernel,
        precision: Precision = "float32",
        scaling: AbstractScaling | None = None,
        cluster: str | None = None,
        edge: int | None = None,
        progress: bool = False,
    ) -> "StoredKernel":
        """Computes what the folder lacks, which may be all, and opens it.

        Killed at any moment, it loses the tiles that were under way, and the same call goes on.

        Args:
            network, x, which, precision, scaling: as for `kernel_matrix`.
            folder: empty or new, or that of the same kernel.
            cluster: "tcp://HOST:PORT" of a Dask scheduler, or "local"; None computes in threads.
            edge: rows of a tile; 4,096, and fewer for a matrix of few tiles.
            progress: whether to show entries and the time left, on a terminal.

        Raises ValueError for a folder that holds something else, ImportError without Zarr, and as
        `kernel_matrix` does.
        """
        if edge is None:
            edge = min(EDGE, max(512, -(-len(x) // 8)))
        spec = Spec(network, scaling or NTK(), which, precision, len(x), edge)
        with workers(cluster) as (pool, count):
            found = _opened(Path(folder), spec, checked(x, "x"))
            found.fill(pool, count, progress=progress)
        return found

    def missing(self) -> list[tuple[int, int]]:
        """The tiles that are not done, by their numbers from the top and from the left."""
        done = {path.name for path in (self.folder / "done").iterdir()}
        pairs = itertools.combinations_with_replacement(range(len(self.blocks())), 2)
        return [pair for pair in pairs if _marker(*pair) not in done]

    def fill(self, pool: Executor, count: int, *, progress: bool) -> None:
        """Computes what is missing, by so many workers."""
        blocks, todo = self.blocks(), self.missing()

        def entries(i: int, j: int) -> int:
            return (blocks[i].stop - blocks[i].start) * (blocks[j].stop - blocks[j].start)

        done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        pairs, waiting, folder = iter(todo), {}, str(self.folder.resolve())

        def hand_out(number: int) -> None:
            for i, j in itertools.islice(pairs, number):
                future = pool.submit(compute_tile, folder, i, j)
                waiting[future] = i, j
                future.add_done_callback(done.put)

        with Progress("kernel tiles", sum(entries(*pair) for pair in todo), show=progress) as bar:
            try:
                hand_out(AHEAD * count)
                while waiting:
                    future = done.get()
                    future.result()
                    bar.advance(entries(*waiting.pop(future)))
                    hand_out(1)
            except BaseException:  # ctrl-C too: what has not begun is not begun
                for future in list(waiting):
                    future.cancel()
                raise

    def tile(self, a: slice, b: slice) -> Float[np.ndarray, "n m"]:
        i, j = a.start // self.edge, b.start // self.edge
        chunk = self.folder / "kernel.zarr" / "kernel" / "c" / str(i) / str(j)
        try:
            # through Zarr it would be copied more than once, which takes longer than all else
            whole = np.memmap(chunk, self._tiles.dtype, "r", shape=(self.edge, self.edge))
            return whole[: a.stop - a.start, : b.stop - b.start]
        except (OSError, ValueError):
            name = _marker(i, j)
            raise ValueError(
                f"The tile {name} of {self.folder} is cut off: remove done/{name} there, and the "
                "same call computes it again."
            ) from None

    def upper(self) -> Float[np.ndarray, "n n"]:
        """The matrix in memory, on and above its diagonal; what is below it is not written."""
        found = np.empty((self.size, self.size), self._tiles.dtype)
        for a, b in itertools.combinations_with_replacement(self.blocks(), 2):
            found[a, b] = self.tile(a, b)
        return found

    def write(self, i: int, j: int, tile: Float[np.ndarray, "n m"]) -> None:
        """Keeps a tile, and then marks it as done."""
        blocks = self.blocks()
        self._tiles[blocks[i], blocks[j]] = tile
        (self.folder / "done" / _marker(i, j)).touch()


def compute_tile(folder: str, i: int, j: int) -> None:
    """Computes a tile of a store and writes it, unless that is done; what workers call."""
    found = _store(folder)
    if (found.folder / "done" / _marker(i, j)).exists():
        return  # a worker that died later took the word of it along
    spec, blocks = found.spec, found.blocks()
    x1 = found.rows[blocks[i]]
    tile = kernel_block(
        spec.network, x1, None if i == j else found.rows[blocks[j]],
        which=spec.which, precision=spec.precision, scaling=spec.scaling,
    )  # fmt: skip
    found.write(i, j, tile)


@functools.lru_cache(maxsize=1)  # of the last folder: a worker computes many tiles of it
def _store(folder: str) -> StoredKernel:
    return StoredKernel(folder)


def _opened(folder: Path, spec: Spec, x: np.ndarray) -> StoredKernel:
    """The folder's store, made where there is none."""
    if (folder / "spec").exists():
        found = StoredKernel(folder)
        if found.spec != spec or not np.array_equal(found.rows[:], x):
            raise ValueError(
                f"The folder {folder} holds {found.spec.which} tiles of {found.spec.network!r}, "
                f"{found.spec.size:,} rows: {AGAIN} for another kernel."
            )
        return found
    if folder.exists() and any(folder.iterdir()) and not (folder / "kernel.zarr").exists():
        raise ValueError(f"The folder {folder} holds other files: {AGAIN}.")
    (folder / "done").mkdir(parents=True, exist_ok=True)
    group = _zarr().open_group(folder / "kernel.zarr", mode="w")
    group.create_array("rows", data=x, chunks=(spec.edge, *x.shape[1:]), compressors=None)
    group.create_array(
        "kernel", shape=(spec.size, spec.size), chunks=(spec.edge, spec.edge),
        dtype=STORED[spec.precision], compressors=None,
    )  # fmt: skip
    store.save(folder / "spec", spec, "kernel store")  # the last: before it, there is no store
    return StoredKernel(folder)


def _marker(i: int, j: int) -> str:
    return f"{i}-{j}"


def _zarr():
    try:
        import zarr
    except ImportError:
        raise ImportError(
            "Stores of tiles need Zarr: pip install 'widthwise[cluster]', or leave the store out."
        ) from None
    return zarr
