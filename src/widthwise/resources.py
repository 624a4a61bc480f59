"""What a training may use of the machine, and of others."""

import dataclasses
from pathlib import Path

from widthwise.memory import bytes_of, free_memory

SHARE = 0.8  # of the memory that is free, where none is named


@dataclasses.dataclass(frozen=True)
class Resources:
    """Memory for kernel matrices and solves, a folder for tiles, and who computes them.

    >>> Resources(memory="4GB").bytes
    4000000000

    Args:
        memory: a size such as "4GB"; None is four fifths of what is free.
        store: folder in which the tiles of a kernel matrix are kept, and from which the same
            training goes on; None keeps them nowhere.
        cluster: "tcp://HOST:PORT" of a Dask scheduler whose workers see `store` under the same
            path, or "local" for one process a core here; None computes in threads.
        progress: whether to show how far training, tiles and products are, on a terminal.

    Raises ValueError for a memory that is no size, and for a cluster without a store.
    """

    memory: str | None = None
    store: Path | None = None
    cluster: str | None = None
    progress: bool = False

    def __post_init__(self):
        if self.memory is not None:
            bytes_of(self.memory)
        if self.cluster is not None and self.store is None:
            raise ValueError("A cluster writes tiles to a store: give the folder of one too.")

    @property
    def bytes(self) -> int | None:
        """Bytes to stay within; None where there is no way to tell."""
        if self.memory is not None:
            return bytes_of(self.memory)
        free = free_memory()
        return None if free is None else int(SHARE * free)

    @property
    def named(self) -> bool:
        """Whether anything was asked for that changes how a kernel matrix is solved with."""
        return self.memory is not None or self.store is not None


ALL_OF_IT = Resources()
