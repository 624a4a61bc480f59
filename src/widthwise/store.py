"""Files that hold a value: written whole or not at all, and recognised when they are damaged."""

import hashlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

FORMAT = 1  # of all files written here; a change of what they hold raises it
DIGEST = 32  # bytes of a SHA-256


def save(path: str | os.PathLike, value: Any, kind: str) -> None:
    """Writes a picklable value as a file of this kind, with a seal over its content.

    Raises ValueError for a value that cannot be pickled.
    """
    try:
        content = pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"This {kind} cannot be saved ({error}): give Elementwise a named function of a "
            "module instead of a lambda."
        ) from None
    seal = hashlib.sha256(content).digest()
    write_whole(Path(path), _magic(kind) + bytes([FORMAT]) + seal + content)


def load(path: str | os.PathLike, kind: str, again: str) -> Any:
    """Reads a file written by `save`. As with any pickle, load only files you trust.

    Raises ValueError, in one sentence that ends with `again`, for anything else.
    """
    try:
        found = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"The {kind} {path} cannot be read: {error.strerror}.") from None
    magic = _magic(kind)
    if not found.startswith(magic):
        raise ValueError(f"{path} is not a {kind} saved by widthwise.")
    head, rest = found[len(magic) :][:1], found[len(magic) + 1 :]
    if head and head[0] != FORMAT:
        raise ValueError(
            f"{path} has {kind} format {head[0]} and this version reads {FORMAT}: {again}."
        )
    seal, content = rest[:DIGEST], rest[DIGEST:]
    if hashlib.sha256(content).digest() != seal:
        raise ValueError(f"{path} is cut off or damaged: {again}.")
    try:
        return pickle.loads(content)
    except (AttributeError, ImportError):  # classes that are elsewhere in this version
        raise ValueError(f"{path} was saved by another version of widthwise: {again}.") from None


def _magic(kind: str) -> bytes:
    return f"widthwise {kind}\n".encode()


def write_whole(path: Path, content: bytes) -> None:
    """Writes beside the target and renames, so that no reader ever sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)  # mkstemp makes files for the owner alone: give them the usual rights
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
