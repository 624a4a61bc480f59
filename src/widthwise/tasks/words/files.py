"""Large files, written in pieces: whole or not at all, like those of `widthwise.store`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name once it is whole and on disk.

    >>> with written(Path("numbers")) as file:
    ...     _ = file.write(b"12")
    >>> Path("numbers").read_bytes()
    b'12'

    A process that is killed meanwhile leaves what stood there before, and NAME.part, which the
    next call overwrites.
    """
    unfinished = path.with_name(f"{path.name}.part")
    with open(unfinished, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
