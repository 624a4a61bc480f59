"""Drawings of characters, from Omniglot's own folders and zip files, or packed in one NPZ file."""

import dataclasses
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from widthwise.data.base import DataError

SIDE = 28
PARTS = ("images_background", "images_evaluation")
WANTED = (
    "the folder with Omniglot's images_background and images_evaluation, as folders or as .zip "
    "files, or an omniglot.npz"
)
RESAMPLED = "Drawings are 28 x 28 by Pillow's bilinear filter with antialiasing; ink is 1, paper 0."
_DRAWING = re.compile(r"(?:^|.*/)([^/]+/[^/]+)/[^/.][^/]*\.png", re.IGNORECASE)
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX/)")  # what archivers leave behind


@dataclasses.dataclass(frozen=True, eq=False)
class Drawings:
    """Classes of drawings.

    >>> drawings = Drawings("toy", np.zeros((5, 784), "uint8"), np.array([0, 2, 5]), ("a", "b"))
    >>> drawings.counts.tolist()
    [2, 3]

    Args:
        name: of the data set.
        ink: a row a drawing, 255 is ink; the classes one after another.
        first: the first row of each class, and the number of rows.
        classes: their names.
    """

    name: str
    ink: UInt8[np.ndarray, "n p"]
    first: Int[np.ndarray, " ends"]
    classes: tuple[str, ...]

    @property
    def alphabets(self) -> tuple[str, ...]:
        """The alphabet of each class: what stands before the last stroke of its name."""
        return tuple(label.rpartition("/")[0] for label in self.classes)

    @property
    def counts(self) -> Int[np.ndarray, " c"]:
        """Drawings of each class."""
        return np.diff(self.first)

    def pixels(
        self, rows: Int[np.ndarray, "..."], turns: Int[np.ndarray, "..."]
    ) -> Float[np.ndarray, "... p"]:
        """Drawings turned by quarter turns, pixels from 0 to 1."""
        return np.take_along_axis(self.ink[rows], _TURNED[turns], axis=-1) / 255.0


# where each pixel of a turned drawing stands in the drawing itself
_TURNED = np.stack(
    [np.rot90(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), turns).ravel() for turns in range(4)]
)


class _Drawing(NamedTuple):
    """One file: its class, its name in messages, and how to read it."""

    label: str
    name: str
    read: Callable[[], bytes]


def read_drawings(path: str | Path) -> Drawings:
    """Reads Omniglot.

    >>> read_drawings("omniglot/").classes[0]  # doctest: +SKIP
    'images_background/Alphabet_of_the_Magi/character01'

    Args:
        path: the folder with images_background and images_evaluation (folders or .zip files, as
            they are offered for download; one of them is enough), one of these two, or an NPZ file
            (or a folder with omniglot.npz) with `background_images`, `background_character`,
            `background_alphabet`, `background_alphabet_names`, and the same of `evaluation`.

    Raises DataError where there is nothing to read, for a class with fewer than 2 drawings, and for
    an image that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: give {WANTED}.")
    if path.is_dir() and (path / "omniglot.npz").is_file():
        path = path / "omniglot.npz"
    if path.suffix.lower() == ".npz":
        return _read_packed(path)
    files: dict[str, list[_Drawing]] = {}
    for drawing in _files(path):
        files.setdefault(drawing.label, []).append(drawing)
    if not files:
        raise DataError(f"{path} has no drawings, Alphabet/character01/0001_01.png: give {WANTED}.")
    return _gathered(
        path.name,
        {
            label: [_shrunk_file(x) for x in sorted(found, key=lambda drawing: drawing.name)]
            for label, found in files.items()
        },
    )


def _files(path: Path) -> Iterator[_Drawing]:
    """The drawings of a folder or zip file, by class."""
    if path.is_file():
        yield from _zipped(path)
        return
    parts = [part for part in PARTS if (path / part).is_dir() or (path / f"{part}.zip").is_file()]
    for part in parts:
        if (path / part).is_dir():
            yield from _in_folder(path / part, f"{part}/")
        else:
            yield from _zipped(path / f"{part}.zip")
    if not parts:
        yield from _in_folder(path, "")


def _in_folder(folder: Path, prefix: str) -> Iterator[_Drawing]:
    for file in folder.glob("*/*/*.[pP][nN][gG]"):
        inside = file.relative_to(folder).as_posix()
        if not _HIDDEN.search(inside):
            yield _Drawing(prefix + inside.rpartition("/")[0], str(file), file.read_bytes)


def _zipped(path: Path) -> Iterator[_Drawing]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError):
        raise DataError(f"{path} is no zip file, or was cut off: fetch it again.") from None
    for name in archive.namelist():
        if (found := _DRAWING.fullmatch(name)) and not _HIDDEN.search(name):

            def read(name=name) -> bytes:
                return archive.read(name)

            yield _Drawing(f"{path.stem}/{found[1]}", f"{path}/{PurePosixPath(name)}", read)


def _shrunk_file(drawing: _Drawing) -> UInt8[np.ndarray, " p"]:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(drawing.read())).convert("L")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, zipfile.BadZipFile):
        raise DataError(
            f"The image {drawing.name} cannot be read: fetch it again, or take it away."
        ) from None
    return shrunk(255 - np.asarray(image))


def shrunk(ink: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, " p"]:
    """A drawing in 28 x 28 pixels, by Pillow's bilinear filter, which averages where it shrinks.

    >>> shrunk(np.full((105, 105), 255, "uint8")).min()
    np.uint8(255)
    """
    from PIL import Image

    small = Image.fromarray(ink).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small).ravel()


_PACKED = ("images", "character", "alphabet", "alphabet_names")


def _read_packed(path: Path) -> Drawings:
    """Ink masks of 105 x 105 pixels, a bit each, and the character and alphabet of each row."""
    try:
        with np.load(path, allow_pickle=False) as found:
            parts = [part for part in ("background", "evaluation") if f"{part}_images" in found]
            packed = {part: [found[f"{part}_{what}"] for what in _PACKED] for part in parts}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise DataError(
            f"{path} is no NPZ file of drawings, or was cut off: give {WANTED}."
        ) from None
    if not packed:
        raise DataError(f"{path} has no background_images and no evaluation_images: give {WANTED}.")
    rows: dict[str, list[np.ndarray]] = {}
    for part, (images, characters, alphabets, names) in packed.items():
        masks = np.unpackbits(images, axis=1, count=105 * 105).reshape(-1, 105, 105)
        for alphabet, name in enumerate(names):
            own = np.unique(characters[alphabets == alphabet])
            for number, character in enumerate(own, start=1):  # named as Omniglot's folders are
                drawn = masks[characters == character]
                label = f"images_{part}/{name}/character{number:02d}"
                rows[label] = [shrunk(255 * mask) for mask in drawn]
    return _gathered(path.name, rows)


def _gathered(name: str, rows: dict[str, list[np.ndarray]]) -> Drawings:
    """Classes in the order of their names, whatever they were read from."""
    classes = tuple(sorted(rows))
    for label in classes:
        if len(rows[label]) < 2:
            raise DataError(
                f"The class {label} of {name} has {len(rows[label])} drawing and a task needs at "
                "least 2, one to learn from and one to test on: take the class away, or add "
                "drawings."
            )
    first = np.concatenate([[0], np.cumsum([len(rows[label]) for label in classes])])
    return Drawings(name, np.concatenate([np.stack(rows[x]) for x in classes]), first, classes)
