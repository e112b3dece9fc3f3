"""A folder of images, one sub-folder per class; decoded with Pillow.

cats/a.png     image  uint8 (C, H, W)      files are taken in a random order that is always the
cats/b.png     label  int64                same, so that every block holds all classes
dogs/c.jpg     classes cats, dogs
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.index import FieldInfo
from hpc_train.data.order.permutation import Permutation
from hpc_train.data.sources.source import Arrays, Kind, Options, Source
from hpc_train.errors import DataError, SetupError, UsageError, unknown

MODES = {"L": 1, "RGB": 3}  # mode -> channels
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F")  # 16 or 32 bits per channel
_FILES = 32  # Philox stream: the order of files


class ImageFolder:
    """Images of one size; without `size` all must have that of the first."""

    licence = ""

    def __init__(self, path: Path, options: Options) -> None:
        self._pillow = _import_pillow()
        self.source = path.absolute().name
        self._classes, listing = _list_images(path)
        order = Permutation(len(listing), 0, _FILES, 0).forward(np.arange(len(listing)))
        self._listing = [listing[place] for place in order]
        self.num_samples = len(listing)
        self._size = options.size
        with self._open(self._listing[0][0]) as first:
            self._mode = options.mode or ("L" if first.mode in _GREY else "RGB")
            self._expected = options.size or (first.height, first.width)
        if self._mode not in MODES:
            raise UsageError(unknown("mode", self._mode, MODES))

    def fields(self) -> dict[str, FieldInfo]:
        """`image` (C, H, W) and `label`, whose classes are the names of the sub-folders."""
        return {
            "image": FieldInfo((MODES[self._mode], *self._expected), "uint8"),
            "label": FieldInfo((), "int64", classes=self._classes),
        }

    def batches(self, rows: int) -> Iterator[Arrays]:
        """Images, decoded one by one."""
        shape = self.fields()["image"].shape
        rows = max(1, min(rows, 2**24 // int(np.prod(shape))))
        for first in range(0, self.num_samples, rows):
            part = self._listing[first : first + rows]
            images = np.empty((len(part), *shape), np.uint8)
            for place, (file, _) in enumerate(part):
                images[place] = self._decode(file)
            yield {"image": images, "label": np.array([label for _, label in part], np.int64)}

    def _decode(self, file: Path) -> NDArray[Any]:
        """One image, uint8 (C, H, W)."""
        with self._open(file) as image:
            if image.mode.startswith(_DEEP):
                raise DataError(
                    f"an image must have 8 bits per channel (mode: {image.mode})", where=str(file)
                )
            height, width = self._expected
            if self._size is None and (image.height, image.width) != self._expected:
                raise DataError(
                    f"images must have the same size, {height}x{width} as {self._listing[0][0]} "
                    f"({image.height}x{image.width})",
                    where=str(file),
                    hint=f"--size {height}x{width} resizes all",
                )
            try:
                pixels = image.convert(self._mode)
                if (image.height, image.width) != self._expected:
                    pixels = pixels.resize((width, height), self._pillow.Resampling.BILINEAR)
            except (OSError, ValueError, SyntaxError) as error:
                raise DataError(f"cannot decode image: {error}", where=str(file)) from error
            array = np.asarray(pixels)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def _open(self, file: Path) -> Any:
        try:
            return self._pillow.open(file)
        except (OSError, ValueError, SyntaxError, self._pillow.DecompressionBombError) as error:
            raise DataError("not an image that Pillow can read", where=str(file)) from error


def _import_pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise SetupError(
            "reading images needs Pillow", hint="python -m pip install 'hpc-train[images]'"
        ) from error


def _list_images(path: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Names of the classes, and every image file with the number of its class."""
    if not path.is_dir():
        raise DataError("an image folder must be a folder", where=str(path))
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(
            "an image folder must hold one sub-folder per class (sub-folders: 0)", where=str(path)
        )
    listing = []
    for label, folder in enumerate(folders):
        files = sorted(p for p in folder.rglob("*") if _is_image(p))
        if not files:
            raise DataError("the folder of a class must hold images", where=str(folder))
        listing += [(file, label) for file in files]
    return tuple(folder.name for folder in folders), listing


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _open(path: Path, options: Options) -> Source:
    return ImageFolder(path, options)


def _matches(path: Path) -> bool:
    if not path.is_dir():
        return False
    return any(
        _is_image(file)
        for folder in path.iterdir()
        if folder.is_dir()
        for file in folder.rglob("*")
    )


KIND = Kind(
    "a folder of images, one sub-folder per class", _open, _matches, frozenset({"size", "mode"})
)
