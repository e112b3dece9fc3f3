"""Finding damage: every chunk against its checksum, every file against the index."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc_train.data.hdf5 import CHECKSUMS, available, first_line, lacking, open_file, pieces
from hpc_train.data.index import NAME, FieldInfo, Index, Shard
from hpc_train.data.scan import find_files
from hpc_train.errors import DataError

Told = Callable[[int], None]


@dataclass(frozen=True)
class Damage:
    """What is wrong with a shard.

    Attributes:
        shard: its file.
        problem: in words.
        field: the field that is damaged, None if it is the file.
        chunk: number of the damaged chunk along the first axis, None if it is the field.
        rows: [first, stop) of the shard's rows that are lost.
    """

    shard: str
    problem: str
    field: str | None = None
    chunk: int | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Verification:
    """What was checked, and what was found.

    Attributes:
        has_checksums: whether content was checked; else only that everything can be read.
    """

    path: str
    has_checksums: bool
    num_shards: int
    num_chunks: int
    num_bytes: int
    damages: tuple[Damage, ...]

    @property
    def is_good(self) -> bool:
        """Whether no damage was found."""
        return not self.damages


def count_shards(path: Path) -> int:
    """How many files `verify` will read.

    Raises:
        DataError: if there is no data set at all.
    """
    return len(Index.read(path).shards if (path / NAME).is_file() else find_files(path))


def verify(path: Path, told: Told | None = None) -> Verification:
    """Read all of a data set, or of foreign HDF5 files, and list every damage.

    Args:
        path: data set folder, HDF5 file, or a folder or pattern of such files.
        told: is called with the number of a shard that was done, from 1 on.

    Raises:
        DataError: if there is no data set at all.
    """
    check = _Check()
    if (path / NAME).is_file():
        index = Index.read(path)
        for number, shard in enumerate(index.shards, 1):
            check.shard(path / shard.file, shard, index)
            if told:
                told(number)
        count = len(index.shards)
    else:
        files = find_files(path)
        for number, file in enumerate(files, 1):
            check.foreign(file)
            if told:
                told(number)
        count = len(files)
    damages = tuple(check.damages)
    return Verification(
        str(path), check.has_checksums, count, check.num_chunks, check.num_bytes, damages
    )


class _Check:
    """Counts and damages so far."""

    def __init__(self) -> None:
        self.has_checksums = False
        self.num_chunks = 0
        self.num_bytes = 0
        self.damages: list[Damage] = []

    def shard(self, file: Path, shard: Shard, index: Index) -> None:
        """A shard of ours: shapes and types as the index says, chunks as their checksums say."""
        try:
            with open_file(file) as opened:
                for name, info in index.fields.items():
                    self._field(opened, shard, name, info)
        except DataError as error:
            self.damages.append(Damage(shard.file, error.message))
        except (OSError, RuntimeError, KeyError) as error:
            self.damages.append(Damage(shard.file, f"cannot be read: {first_line(error)}"))

    def foreign(self, file: Path) -> None:
        """A file without checksums: everything in it can be read."""
        try:
            with open_file(file) as opened:
                for name in available(opened):
                    self._read(file.name, name, opened[name])
        except DataError as error:
            self.damages.append(Damage(file.name, error.message))
        except (OSError, RuntimeError, KeyError) as error:
            self.damages.append(Damage(file.name, f"cannot be read: {first_line(error)}"))

    def _field(self, opened: Any, shard: Shard, name: str, info: FieldInfo) -> None:
        if name not in opened:
            self.damages.append(Damage(shard.file, "field is missing", name))
            return
        dataset = opened[name]
        expected = (shard.samples, *info.shape)
        if dataset.shape != expected or dataset.dtype != np.dtype(info.dtype):
            problem = (
                f"must be {info.dtype} {expected}, as the index says "
                f"({dataset.dtype.name} {dataset.shape})"
            )
            self.damages.append(Damage(shard.file, problem, name))
            return
        place = f"{CHECKSUMS}/{name}"
        if place not in opened or dataset.chunks is None:
            self._read(shard.file, name, dataset)
            return
        sums = opened[place][:]
        chunks = -(-len(dataset) // dataset.chunks[0])
        if sums.shape != (chunks,):
            problem = f"must have one checksum per chunk (chunks: {chunks}, checksums: {len(sums)})"
            self.damages.append(Damage(shard.file, problem, name))
            return
        self.has_checksums = True
        for number, problem in self._compare(dataset, sums):
            rows = number * dataset.chunks[0]
            lost = (rows, min(rows + dataset.chunks[0], len(dataset)))
            self.damages.append(Damage(shard.file, problem, name, number, lost))

    def _compare(self, dataset: Any, sums: Any) -> Iterator[tuple[int, str]]:
        """Number and problem of each chunk that is not what it was."""
        tail = (0,) * (dataset.ndim - 1)
        for number, expected in enumerate(sums.tolist()):
            try:
                _, raw = dataset.id.read_direct_chunk((number * dataset.chunks[0], *tail))
            except (OSError, RuntimeError) as error:
                yield number, f"cannot be read: {first_line(error)}"
                continue
            self.num_chunks += 1
            self.num_bytes += len(raw)
            if zlib.crc32(raw) != expected:
                yield number, "checksum does not match"

    def _read(self, shard: str, name: str, dataset: Any) -> None:
        if not dataset.shape:
            return
        missing = lacking(dataset)
        if missing:
            problem = f"needs a filter that is not installed ({', '.join(missing)})"
            self.damages.append(Damage(shard, problem, name))
            return
        for first, stop in pieces(dataset):
            try:
                part = dataset[first:stop]
            except (OSError, RuntimeError, ValueError) as error:
                problem = f"cannot be read: {first_line(error)}"
                self.damages.append(Damage(shard, problem, name, rows=(first, stop)))
                continue
            self.num_chunks += 1
            self.num_bytes += part.nbytes
