"""What a data set holds, how it is stored, and whether it will be read fast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpc_train.data.advice import Advice, advise
from hpc_train.data.hdf5 import (
    CHECKSUMS,
    Stored,
    available,
    first_line,
    is_numeric,
    open_file,
    pieces,
)
from hpc_train.data.index import NAME, FieldInfo, Index
from hpc_train.data.scan import field_info, find_files
from hpc_train.errors import DataError

_MOST_CLASSES = 1000


@dataclass(frozen=True)
class FieldReport:
    """One field.

    Attributes:
        info: shape, dtype, range and class names; None where it cannot be a field.
        stored: how it is stored in the first shard.
        advice: whether it will be read fast; None where it cannot be a field.
        balance: samples of each class of a label, by name or number; None otherwise.
    """

    info: FieldInfo | None
    stored: Stored
    advice: Advice | None
    balance: dict[str, int] | None = None


@dataclass(frozen=True)
class ShardReport:
    """One file: its name, its samples (-1 if its datasets differ), its bytes."""

    file: str
    samples: int
    num_bytes: int


@dataclass(frozen=True)
class Report:
    """What there is at `path`.

    Attributes:
        is_dataset: whether it is a data set with an index, or foreign files.
        num_samples: samples of all shards, -1 if datasets differ in length.
        has_checksums: whether damage can be found.
    """

    path: str
    is_dataset: bool
    num_samples: int
    fields: dict[str, FieldReport]
    shards: tuple[ShardReport, ...]
    source: str
    licence: str
    has_checksums: bool

    @property
    def is_fast(self) -> bool:
        """Whether all fields will be read fast."""
        return all(field.advice.is_fast for field in self.fields.values() if field.advice)


def inspect(path: Path) -> Report:
    """Look at a data set folder, an HDF5 file, or a folder or pattern of such files.

    Raises:
        DataError: if there is none, or one cannot be read.
    """
    if (path / NAME).is_file():
        return _dataset(path, Index.read(path))
    return _foreign(path, find_files(path))


def _dataset(path: Path, index: Index) -> Report:
    files = [path / shard.file for shard in index.shards]
    with open_file(files[0]) as first:
        known, has_checksums = available(first), CHECKSUMS in first
    fields = {}
    for name, info in index.fields.items():
        if name not in known:
            raise DataError(f"shard lacks the field {name}", where=str(files[0]))
        stored = known[name]
        fields[name] = FieldReport(info, stored, advise(stored), _balance(files, name, info))
    shards = tuple(
        ShardReport(shard.file, shard.samples, _size(file))
        for shard, file in zip(index.shards, files, strict=True)
    )
    about = (index.source, index.licence)
    return Report(str(path), True, index.num_samples, fields, shards, *about, has_checksums)


def _foreign(path: Path, files: list[Path]) -> Report:
    """Every dataset of the first file; lengths and ranges over all files that have it."""
    infos: dict[str, FieldInfo | None] = {}
    stored: dict[str, Stored] = {}
    shards = []
    for file in files:
        with open_file(file) as opened:
            known = available(opened)
            usable = {n: s for n, s in known.items() if s.shape and is_numeric(opened[n].dtype)}
            lengths = {entry.shape[0] for entry in usable.values()}
            samples = lengths.pop() if len(lengths) == 1 else -1
            shards.append(ShardReport(file.name, samples, _size(file)))
            if not stored:
                stored = known
            for name in usable:
                infos[name] = _wider(infos.get(name), field_info(opened[name], file))
    if not stored:
        raise DataError("file must hold datasets (datasets: none)", where=str(files[0]))
    fields = {}
    for name, entry in stored.items():
        info = infos.get(name)
        advice = advise(entry) if info else None
        balance = _balance(files, name, info) if info else None
        fields[name] = FieldReport(info, entry, advice, balance)
    total = -1 if any(s.samples < 0 for s in shards) else sum(s.samples for s in shards)
    return Report(str(path), False, total, fields, tuple(shards), "", "", False)


def _wider(before: FieldInfo | None, info: FieldInfo) -> FieldInfo:
    if before is None or before.low is None or before.high is None:
        return info
    if info.low is None or info.high is None:
        return before
    return replace(info, low=min(before.low, info.low), high=max(before.high, info.high))


def _balance(files: list[Path], name: str, info: FieldInfo) -> dict[str, int] | None:
    """Samples per class of a scalar integer field with at most 1,000 classes from 0 on."""
    classes = info.num_classes
    if info.shape != () or np.dtype(info.dtype).kind not in "iu" or classes is None:
        return None
    if classes > _MOST_CLASSES or info.low is None or info.low < 0:
        return None
    count = np.zeros(classes, np.int64)
    for values in _values(files, name):
        count += np.bincount(values, minlength=classes)[:classes]
    names = info.classes or [str(number) for number in range(classes)]
    return dict(zip(names, count.tolist(), strict=True))


def _values(files: list[Path], name: str) -> Iterator[np.ndarray]:
    for file in files:
        with open_file(file) as opened:
            if name not in opened:
                continue
            try:
                for first, stop in pieces(opened[name]):
                    yield opened[name][first:stop].astype(np.int64)
            except OSError as error:
                raise DataError(
                    f"cannot read dataset {name}: {first_line(error)}",
                    where=str(file),
                    hint=f"hpc-train data verify {file}",
                ) from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise DataError("shard is missing", where=str(file)) from error
