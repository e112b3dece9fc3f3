"""IDX files, the format of MNIST: images and the labels beside them, gzipped or not.

    00 00 08 03 | count | height | width | pixels ...       big-endian; 08: unsigned bytes, 03: axes
    00 00 08 01 | count | labels ...

Format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.index import FieldInfo
from hpc_train.data.sources.source import Arrays, Kind, Options, Source
from hpc_train.errors import DataError

_UNSIGNED_BYTE = 8


class _IdxFile:
    """One IDX file of unsigned bytes; `shape` is what its header says."""

    def __init__(self, path: Path, num_axes: int, holds: str) -> None:
        self.path = path
        with self._errors(), self._stream() as stream:
            head = stream.read(4)
            is_idx = len(head) == 4 and head[:2] == b"\0\0"
            if not is_idx or head[2] != _UNSIGNED_BYTE or head[3] != num_axes:
                raise DataError(
                    f"{holds} must be an IDX file of unsigned bytes with {num_axes} axes "
                    f"(first bytes: {head.hex(' ')})",
                    where=str(path),
                )
            axes = np.frombuffer(stream.read(4 * num_axes), ">u4")
            if len(axes) != num_axes:
                raise DataError("file ends within its header", where=str(path))
        self.shape = tuple(int(length) for length in axes)

    def pieces(self, rows: int) -> Iterator[NDArray[Any]]:
        """The values, uint8 (rows, *shape[1:]) at a time."""
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64))
        with self._errors(), self._stream() as stream:
            stream.read(4 + 4 * len(self.shape))
            for first in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - first)
                data = stream.read(count * row_bytes)
                if len(data) < count * row_bytes:
                    whole = first + len(data) // max(1, row_bytes)
                    raise DataError(
                        f"file must hold {self.shape[0]} samples, as its header says "
                        f"(samples: {whole})",
                        where=str(self.path),
                    )
                yield np.frombuffer(data, np.uint8).reshape(count, *self.shape[1:])

    def _stream(self) -> IO[bytes]:
        if self.path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(self.path, "rb"))
        return self.path.open("rb")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what reading complains of into an error of the data."""
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise DataError(f"cannot read: {reason}", where=str(self.path)) from error


class IdxSource:
    """`image` uint8 (1, H, W), and `label` int64 unless there are none."""

    licence = ""

    def __init__(self, path: Path, options: Options) -> None:
        images = _images_file(path)
        self.source = images.name
        self._images = _IdxFile(images, 3, "images")
        self.num_samples = self._images.shape[0]
        self._labels: _IdxFile | None = None
        if options.labels != "none":
            labels = _labels_file(images, options.labels)
            self.source += f", {labels.name}"
            self._labels = _IdxFile(labels, 1, "labels")
            if self._labels.shape[0] != self.num_samples:
                raise DataError(
                    f"there must be one label per image (images: {self.num_samples}, "
                    f"labels: {self._labels.shape[0]})",
                    where=str(labels),
                )

    def fields(self) -> dict[str, FieldInfo]:
        """As the headers say."""
        found = {"image": FieldInfo((1, *self._images.shape[1:]), "uint8")}
        if self._labels is not None:
            found["label"] = FieldInfo((), "int64")
        return found

    def batches(self, rows: int) -> Iterator[Arrays]:
        """Images with their labels."""
        images = self._images.pieces(rows)
        if self._labels is None:
            yield from ({"image": image[:, None]} for image in images)
            return
        for image, label in zip(images, self._labels.pieces(rows), strict=True):
            yield {"image": image[:, None], "label": label.astype(np.int64)}


def _images_file(path: Path) -> Path:
    """The images file that a path means: itself, or the only one in the folder."""
    if not path.is_dir():
        return path
    found = _candidates(path)
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise DataError(
            f"folder must hold one IDX file of images ({names})",
            where=str(path),
            hint="name the file in place of the folder",
        )
    return found[0]


def _candidates(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if "images" in p.name and _is_idx(p))


def _labels_file(images: Path, stated: str | None) -> Path:
    """The labels file: as stated, or beside the images and called alike."""
    if stated is not None:
        choices = [Path(stated), images.parent / stated]
    else:
        name = images.name.removesuffix(".gz")
        name = name.replace("images", "labels").replace("idx3", "idx1")
        choices = [images.with_name(name), images.with_name(f"{name}.gz")]
        choices = [choice for choice in choices if choice != images]
    for choice in choices:
        if choice.is_file():
            return choice
    raise DataError(
        "no labels file found (looked for: " + ", ".join(str(c) for c in choices) + ")",
        where=str(images),
        hint="--labels FILE names it, --labels none imports images alone",
    )


def _is_idx(path: Path) -> bool:
    name = path.name.removesuffix(".gz")
    return path.is_file() and name.endswith((".idx", "-ubyte", ".idx3", ".idx1", ".ubyte"))


def _open(path: Path, options: Options) -> Source:
    return IdxSource(path, options)


def _matches(path: Path) -> bool:
    return _is_idx(path) or (path.is_dir() and bool(_candidates(path)))


KIND = Kind("IDX files (MNIST), .gz too", _open, _matches, frozenset({"labels"}))
