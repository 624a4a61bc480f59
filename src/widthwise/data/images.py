"""Folders of images in the two formats that research passes around: idx and CIFAR's binaries."""

import math
import re
from pathlib import Path

import numpy as np

from widthwise.data.base import DataError
from widthwise.data.delimited import read_bytes
from widthwise.data.raw import Arrays

IDX = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx\d-ubyte(\.gz)?")
PIXELS = 3 * 32 * 32
CIFAR10 = tuple(f"data_batch_{i}.bin" for i in range(1, 6))


def read_folder(folder: Path, target: str | None = None) -> Arrays:
    """Reads a folder of images; `target` is "fine" or "coarse" for CIFAR-100.

    Looked for are MNIST's names (train-images-idx3-ubyte, ..., also .gz), CIFAR-10's
    (data_batch_1.bin, ..., test_batch.bin) and CIFAR-100's (train.bin, test.bin), in the folder
    or one below it. Raises DataError if there are none, or if a file is missing or cut off.
    """
    try:
        places = [folder, *sorted(x for x in folder.iterdir() if x.is_dir())]
        names = {place: {x.name for x in place.iterdir()} for place in places}
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read ({error.strerror}): check its permissions."
        ) from None
    for place in places:
        idx = {(m[1], m[2]): place / m[0] for x in sorted(names[place]) if (m := IDX.fullmatch(x))}
        if idx:
            _refuse_target(place, target)
            return _read_idx_folder(place, idx)
        if names[place] & {*CIFAR10, "test_batch.bin"}:
            _refuse_target(place, target)
            return _read_cifar(place, CIFAR10, "test_batch.bin", ("batches.meta.txt",), 1, 0)
        if names[place] & {"train.bin", "test.bin"}:
            if target not in (None, "fine", "coarse"):
                raise DataError(f"CIFAR-100 has no target {target!r}: choose 'fine' or 'coarse'.")
            which = 0 if target == "coarse" else 1
            meta = (f"{('coarse', 'fine')[which]}_label_names.txt",)
            return _read_cifar(place, ("train.bin",), "test.bin", meta, 2, which)
    raise DataError(
        f"The folder {folder} has no known files: give one with train-images-idx3-ubyte (MNIST), "
        "data_batch_1.bin (CIFAR-10) or train.bin (CIFAR-100) and their companions, or name a file."
    )


def read_idx(path: Path) -> np.ndarray:
    """One idx file of bytes as an array (n, ...); DataError if it is cut off.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 5]))
    >>> read_idx(path).tolist()
    [7, 5]
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != 8:
        raise DataError(f"{path} is no idx file of bytes: fetch it again, or unpack it.")
    start = 4 + 4 * content[3]
    header = content[4:start]
    shape = tuple(map(int, np.frombuffer(header[: len(header) // 4 * 4], dtype=">u4")))
    wanted = start + math.prod(shape)
    if len(shape) < content[3] or len(content) != wanted:
        raise DataError(
            f"{path} has {len(content):,} bytes and its header asks for {wanted:,}: it was cut off "
            "or damaged, so fetch it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_cifar_batch(path: Path, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, labels) and pixels (n, 3072): red, green and blue planes of 32 x 32."""
    content = np.frombuffer(read_bytes(path), dtype=np.uint8)
    row = labels + PIXELS
    if len(content) == 0 or len(content) % row:
        raise DataError(
            f"{path} has {len(content):,} bytes, which is not a whole number of images of {row:,} "
            "bytes: it was cut off, so fetch it again."
        )
    rows = content.reshape(-1, row)
    return rows[:, :labels], rows[:, labels:]


def _refuse_target(folder: Path, target: str | None) -> None:
    if target is not None:
        raise DataError(f"The images of {folder} have one target, the label: leave target out.")


def _read_idx_folder(folder: Path, found: dict[tuple[str, str], Path]) -> Arrays:
    test = "t10k" if ("t10k", "images") in found else "test"
    arrays = []
    for part in ("train", test):
        for what in ("images", "labels"):
            if (part, what) not in found:
                name = f"{part}-{what}-idx{3 if what == 'images' else 1}-ubyte"
                raise DataError(f"The folder {folder} lacks {name}: put it there, plain or as .gz.")
            arrays.append(read_idx(found[part, what]))
        images, labels = arrays[-2:]
        if labels.ndim != 1 or images.ndim < 2 or len(images) != len(labels) or len(labels) == 0:
            raise DataError(
                f"The {part} files of {folder} have images of shape {images.shape} and labels of "
                f"shape {labels.shape}: give as many labels as images."
            )
    x, y, x_test, y_test = arrays
    return Arrays(folder.name, x, y, x_test, y_test, "classification", pixels=True)


def _read_cifar(
    folder: Path, train: tuple[str, ...], test: str, meta: tuple[str, ...], labels: int, which: int
) -> Arrays:
    for name in (*train, test):
        if not (folder / name).exists():
            raise DataError(f"The folder {folder} lacks {name}: put it there.")
    read = [read_cifar_batch(folder / name, labels) for name in (*train, test)]
    y, y_test = np.concatenate([a[:, which] for a, _ in read[:-1]]), read[-1][0][:, which]
    x = np.concatenate([pixels for _, pixels in read[:-1]])
    names = [folder / name for name in meta if (folder / name).exists()]
    classes = tuple(names[0].read_text().split()) if names else ()
    return Arrays(
        folder.name, x, y, read[-1][1], y_test, "classification", classes=classes, pixels=True
    )
