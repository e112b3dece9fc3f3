"""Foreign HDF5 files as a data set: found, checked, indexed, and the index kept beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_train.data.hdf5 import (
    SUFFIXES,
    available,
    first_line,
    is_numeric,
    open_file,
    pieces,
    require_filters,
)
from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.errors import DataError, nearest, unknown

__all__ = ["available", "cached_scan", "find_files", "scan"]


def find_files(path: Path) -> list[Path]:
    """The HDF5 files that a path means: a file, those directly in a folder, or those of a pattern.

    Raises:
        DataError: if there are none.
    """
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
        found = [p for p in found if not p.name.startswith(".")]
        if not found:
            raise DataError(
                f"folder must hold HDF5 files ({', '.join(SUFFIXES)})",
                where=str(path),
                hint="hpc-train data import makes a data set of other files",
            )
        return sorted(found)
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        matches = sorted(Path(name) for name in glob.glob(str(path)))
        if matches:
            return matches
        raise DataError("no file matches the pattern", where=str(path))
    raise DataError("no such file or folder", where=str(path), hint=_similar(path))


def scan(
    files: Sequence[Path], fields: Sequence[str], block_rows: int, root: Path | None = None
) -> Index:
    """The index of foreign HDF5 files, in the given order.

    Args:
        files: at least one.
        fields: slash paths of the datasets of a sample, at least one.
        block_rows: rows that are read together where the largest dataset is contiguous, >= 1.
        root: the folder that `Shard.file` is relative to, by default the common parent folder;
            files elsewhere get absolute paths.

    Raises:
        DataError: if a file or dataset is missing, or datasets do not fit each other.
    """
    if not files or not fields:
        raise DataError(
            f"files and datasets must be named (files: {len(files)}, datasets: {len(fields)})"
        )
    absolute = [Path(os.path.abspath(file)) for file in files]
    base = Path(os.path.abspath(root) if root else os.path.commonpath([p.parent for p in absolute]))
    infos: dict[str, FieldInfo] = {}
    shards = []
    for path, file in zip(absolute, files, strict=True):
        found, samples, rows = _scan_file(file, fields, block_rows)
        infos = {n: _merge(n, infos.get(n), info, file, files[0]) for n, info in found.items()}
        name = path.relative_to(base) if path.is_relative_to(base) else path
        shards.append(Shard(str(name), samples, rows))
    return Index(infos, tuple(shards))


def cached_scan(path: Path, fields: Sequence[str], block_rows: int) -> Index:
    """`scan` of a file, folder or pattern, remembered as `.<name>.hpc_train-index.json` beside it.

    What is remembered holds while names, sizes and modification times of all files and the
    question are the same. Where it cannot be written, it is not kept. Shards are relative to the
    folder, or to the parent folder of a file or pattern.
    """
    files = find_files(path)
    root = path if path.is_dir() else path.parent
    state = [file.stat() for file in files]
    sidecar: dict[str, Any] = {
        "fields": list(fields),
        "block_rows": block_rows,
        "files": [
            [os.path.abspath(f), s.st_size, s.st_mtime_ns]
            for f, s in zip(files, state, strict=True)
        ],
    }
    place = Path(os.path.abspath(path))
    name = f".{place.name}.hpc_train-index.json".replace("*", "+").replace("?", "+")
    try:
        kept = Index.read(place.parent, name)
        if kept.sidecar == sidecar:
            return dataclasses.replace(kept, sidecar={})
    except DataError:
        pass  # none there, or damaged: it is only a memory
    # a root that is itself a pattern is no file's folder: absolute paths then
    index = scan(files, fields, block_rows, root)
    with contextlib.suppress(OSError):  # a read-only folder is no reason to fail
        dataclasses.replace(index, sidecar=sidecar).write(place.parent, name)
    return index


def _scan_file(
    file: Path, fields: Sequence[str], block_rows: int
) -> tuple[dict[str, FieldInfo], int, int]:
    """Fields, number of samples and rows of a block of one file."""
    with open_file(file) as opened:
        known = available(opened)
        for name in fields:
            if name not in known:
                raise DataError(unknown("dataset", name, known), where=str(file))
            _check(name, opened[name], file)
        lengths = {name: known[name].shape[0] for name in fields}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise DataError(
                f"datasets must have the same length along the first axis ({told})",
                where=str(file),
            )
        infos = {name: field_info(opened[name], file) for name in fields}
        largest = max(fields, key=lambda name: infos[name].sample_bytes)
        rows = known[largest].layer_rows or block_rows
        return infos, lengths[largest], rows


def field_info(dataset: Any, file: Path) -> FieldInfo:
    """What the index says of an open dataset; a scalar integer one is read for its range."""
    info = FieldInfo(tuple(dataset.shape[1:]), dataset.dtype.name)
    if info.shape != () or dataset.dtype.kind not in "iu" or len(dataset) == 0:
        return info
    require_filters(dataset, file)
    low, high = [], []
    try:
        for first, stop in pieces(dataset):
            values = dataset[first:stop]
            low.append(int(values.min()))
            high.append(int(values.max()))
    except OSError as error:
        raise DataError(
            f"cannot read dataset {dataset.name.lstrip('/')}: {first_line(error)}",
            where=str(file),
            hint=f"hpc-train data verify {file}",
        ) from error
    return dataclasses.replace(info, low=min(low), high=max(high))


def _check(name: str, dataset: Any, file: Path) -> None:
    """Check that a dataset can be a field."""
    if not is_numeric(dataset.dtype):
        kind = "strings or objects" if dataset.dtype.kind in "OSU" else str(dataset.dtype)
        raise DataError(
            f"dataset {name} must hold booleans, integers or floats of up to 64 bits ({kind})",
            where=str(file),
        )
    if not dataset.shape:
        raise DataError(
            f"dataset {name} must have a first axis, the sample (shape: {dataset.shape})",
            where=str(file),
        )


def _merge(
    name: str, before: FieldInfo | None, info: FieldInfo, file: Path, first: Path
) -> FieldInfo:
    """The field over the files so far; its range spans all of them."""
    if before is None:
        return info
    if (before.shape, before.dtype) != (info.shape, info.dtype):
        raise DataError(
            f"dataset {name} must be as in {first.name}, {before.dtype} {before.shape} "
            f"({info.dtype} {info.shape})",
            where=str(file),
        )
    if before.low is None or before.high is None or info.low is None or info.high is None:
        return info if before.low is None else before
    return dataclasses.replace(
        before, low=min(before.low, info.low), high=max(before.high, info.high)
    )


def _similar(path: Path) -> str | None:
    """A hint that names the neighbour most like a missing file."""
    try:
        like = nearest(path.name, sorted(p.name for p in path.parent.iterdir()))
    except OSError:
        return None
    return f"did you mean {path.parent / like}?" if like else None
