"""NumPy arrays: one or several .npy files (memory-mapped), or the arrays of an .npz (streamed)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from hpc_train.data.hdf5 import is_numeric
from hpc_train.data.index import FieldInfo
from hpc_train.data.sources.source import Arrays, Kind, Options, Source
from hpc_train.errors import DataError, unknown


class _Array:
    """One array: a file of its own, or a member of an archive, read from front to back."""

    def __init__(self, file: Path, member: str | None = None) -> None:
        self.where = f"{file}, {member}" if member else str(file)
        self._file, self._member = file, member
        try:
            with self._stream() as stream:
                self.shape, self.is_fortran, self.dtype = _header(stream)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"not a NumPy array: {error}", where=self.where) from error
        if not is_numeric(self.dtype):
            raise DataError(
                f"array must hold booleans, integers or floats of up to 64 bits "
                f"(dtype: {self.dtype})",
                where=self.where,
                hint="pickled objects are never loaded" if self.dtype.hasobject else None,
            )
        if not self.shape:
            raise DataError("array must have a first axis, the sample", where=self.where)

    def pieces(self, rows: int) -> Iterator[NDArray[Any]]:
        """The array, `rows` rows at a time.

        An .npz member in Fortran order is held in memory whole: its rows lie scattered.
        """
        if self._member is None:
            whole = np.load(self._file, mmap_mode="r", allow_pickle=False)
            yield from (whole[first : first + rows] for first in range(0, len(whole), rows))
            return
        with self._stream() as stream:
            _header(stream)
            if self.is_fortran:
                flat = np.frombuffer(stream.read(), self.dtype)
                whole = flat.reshape(self.shape, order="F")
                yield from (whole[first : first + rows] for first in range(0, len(whole), rows))
                return
            row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
            for first in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - first)
                data = stream.read(count * row_bytes)
                if len(data) < count * row_bytes:
                    raise ValueError("the array is shorter than its header says")
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def _stream(self) -> IO[bytes]:
        if self._member is None:
            return self._file.open("rb")
        # the handle keeps the archive open
        return zipfile.ZipFile(self._file).open(self._member)


class NpySource:
    """Arrays of the same length as fields; a field is called like its file or member."""

    licence = ""

    def __init__(self, path: Path, options: Options) -> None:
        self.source = path.name
        self._arrays = _archive(path, options) if _is_npz(path) else _files(path, options)
        lengths = {name: array.shape[0] for name, array in self._arrays.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise DataError(
                f"arrays must have the same length along the first axis ({told})",
                where=str(path),
                hint="name those that belong together with --inputs and --targets",
            )
        self.num_samples = next(iter(lengths.values()))

    def fields(self) -> dict[str, FieldInfo]:
        """As the headers of the arrays say."""
        return {
            name: FieldInfo(tuple(array.shape[1:]), array.dtype.name)
            for name, array in self._arrays.items()
        }

    def batches(self, rows: int) -> Iterator[Arrays]:
        """All arrays side by side."""
        streams = [array.pieces(rows) for array in self._arrays.values()]
        try:
            for parts in zip(*streams, strict=True):
                yield dict(zip(self._arrays, parts, strict=True))
        except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read the arrays: {error}", where=self.source) from error


def _is_npz(path: Path) -> bool:
    return path.suffix == ".npz"


def _archive(path: Path, options: Options) -> dict[str, _Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"not an .npz archive: {error}", where=str(path)) from error
    for name in options.names:
        if name not in members:
            raise DataError(unknown("array", name, members), where=str(path))
    if not members:
        raise DataError("archive must hold arrays", where=str(path))
    return {name: _Array(path, f"{name}.npy") for name in options.names or members}


def _files(path: Path, options: Options) -> dict[str, _Array]:
    """The .npy files: `path` itself or those in it, and those named, which lie beside it."""
    folder = path if path.is_dir() else path.parent
    files = [] if path.is_dir() else [path]
    for name in options.names:
        choices = [folder / name, folder / f"{name}.npy", Path(name)]
        found = next((choice for choice in choices if choice.is_file()), None)
        if found is None:
            names = [p.name for p in folder.glob("*.npy")]
            raise DataError(unknown("array file", name, names), where=str(folder))
        files.append(found)
    files = list(dict.fromkeys(files or sorted(folder.glob("*.npy"))))
    arrays = {file.stem: _Array(file) for file in files}
    if len(arrays) < len(files):
        raise DataError("array files must have different names", where=str(folder))
    return arrays


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and dtype of an .npy stream."""
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy_format.read_array_header_2_0(stream)
    raise ValueError(f"format version must be 1.0 or 2.0 (version: {version})")


def _open(path: Path, options: Options) -> Source:
    return NpySource(path, options)


def _matches(path: Path) -> bool:
    if path.suffix in (".npy", ".npz"):
        return path.is_file()
    return path.is_dir() and any(path.glob("*.npy"))


KIND = Kind(".npy files, .npz", _open, _matches, frozenset({"inputs", "targets"}))
