"""Existing HDF5 files, or a data set, to be rewritten in well-chunked shards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5 import (
    SUFFIXES,
    Stored,
    available,
    first_line,
    is_numeric,
    open_file,
    pieces,
    require_filters,
)
from hpc_train.data.index import NAME, FieldInfo, Index
from hpc_train.data.scan import find_files, scan
from hpc_train.data.sources.source import Arrays, Kind, Options, Source
from hpc_train.errors import DataError, unknown

logger = logging.getLogger(__name__)


class Hdf5Source:
    """The samples of a data set folder, an HDF5 file, or a folder or pattern of such files."""

    def __init__(self, path: Path, options: Options) -> None:
        if (path / NAME).is_file():
            index = Index.read(path)
            self._files = [path / shard.file for shard in index.shards]
            for name in options.names:
                if name not in index.fields:
                    raise DataError(unknown("dataset", name, index.fields), where=str(path))
            names = options.names or list(index.fields)
            self._fields = {name: index.fields[name] for name in names}
        else:
            self._files = find_files(path)
            names = options.names or _all_names(self._files[0])
            index = scan(self._files, names, 1)
            self._fields = index.fields
        self.source = index.source or path.name
        self.licence = index.licence
        self.num_samples = index.num_samples

    def fields(self) -> dict[str, FieldInfo]:
        """As the files say; class names where a data set has them."""
        return self._fields

    def batches(self, rows: int) -> Iterator[Arrays]:
        """The rows of file after file."""
        largest = max(self._fields, key=lambda name: self._fields[name].sample_bytes)
        for file in self._files:
            with open_file(file) as opened:
                try:
                    for name in self._fields:
                        require_filters(opened[name], file)
                    for first, stop in pieces(opened[largest], rows):
                        yield {name: opened[name][first:stop] for name in self._fields}
                except (OSError, KeyError) as error:
                    raise DataError(
                        f"cannot read: {first_line(error)}",
                        where=str(file),
                        hint=f"hpc-train data verify {file}",
                    ) from error


def _all_names(file: Path) -> list[str]:
    """The datasets of a file that can be fields; a warning names the others."""
    known = available(file)
    good = {name: entry for name, entry in known.items() if _can_be_field(entry)}
    if not good:
        raise DataError(
            f"file must hold datasets of numbers (datasets: {', '.join(known) or 'none'})",
            where=str(file),
        )
    lengths = Counter(entry.shape[0] for entry in good.values())
    if len(lengths) > 1:
        told = ", ".join(f"{name}: {entry.shape[0]}" for name, entry in good.items())
        raise DataError(
            f"datasets must have the same length along the first axis ({told})",
            where=str(file),
            hint="name those that belong together with --inputs and --targets",
        )
    for name in known.keys() - good.keys():
        logger.warning("%s: dataset %s is left out (%s)", file, name, known[name].dtype)
    return list(good)


def _can_be_field(entry: Stored) -> bool:
    try:
        return is_numeric(np.dtype(entry.dtype)) and len(entry.shape) > 0
    except TypeError:
        return False


def _open(path: Path, options: Options) -> Source:
    return Hdf5Source(path, options)


def _matches(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.is_dir():
        return False
    return (path / NAME).is_file() or any(p.suffix.lower() in SUFFIXES for p in path.iterdir())


KIND = Kind("HDF5 files or a data set", _open, _matches, frozenset({"inputs", "targets"}))
