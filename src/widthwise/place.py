"""Places to write to: refused before any work is done, left as they were when the work fails."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder_for(folder: Path) -> Iterator[Path]:
    """Makes a folder for what is about to be computed.

    >>> with folder_for(Path("widthwise-report/runs")) as runs:  # doctest: +SKIP
    ...     train(runs)

    When the work fails, whatever was made here and is still empty is taken away again.

    Raises ValueError where nothing can be written, and for the name of a page.
    """
    if folder.suffix.lower() == ".html" or folder.parent.suffix.lower() == ".html":
        raise ValueError(
            f"{folder} is named like a page, and the output is a folder that will hold one: leave "
            ".html out."
        )
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    standing = next(path for path in (folder, *folder.parents) if path.exists())
    if not standing.is_dir():
        raise ValueError(
            f"{folder} cannot be a folder for the output, as {standing} is a file: choose another."
        )
    if not os.access(standing, os.W_OK | os.X_OK):
        raise ValueError(f"The folder {standing} is not writable: choose another for the output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BaseException:
        for path in missing:  # from the innermost outwards
            with contextlib.suppress(OSError):  # not empty: finished members are kept
                path.rmdir()
        raise


@contextlib.contextmanager
def file_for(path: Path) -> Iterator[Path]:
    """As `folder_for`, for one file."""
    if path.is_dir():
        raise ValueError(f"The output {path} is a folder: name a file.")
    with folder_for(path.parent):
        yield path
