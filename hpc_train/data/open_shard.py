"""One shard that is open for reading: its fields, each with the route that its storage allows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpc_train.data.hdf5 import CHECKSUMS, filters, lacking, require_filters
from hpc_train.data.index import FieldInfo
from hpc_train.data.routes import Route, Source, choose
from hpc_train.data.routes.chunk_table import ChunkTable, read_table
from hpc_train.data.routes.mapping import MappedFile
from hpc_train.errors import DataError

_DEEPEST = 8  # virtual datasets of virtual datasets


class OpenShard:
    """An HDF5 file and the routes of some of its fields, until `close`.

    Args:
        path: the file.
        root: the folder of the data set: nothing outside of it is read.
        samples: rows that every field must have at least.

    Attributes:
        users: how many threads are reading it; it may not be closed before they are done.
    """

    def __init__(self, path: Path, root: Path, samples: int) -> None:
        self.path = path
        self.users = 0
        self._roots = (Path(os.path.realpath(root)), Path(os.path.realpath(path)).parent)
        self._samples = samples
        self._routes: dict[str, Route] = {}
        # file locking off: parallel file systems often break it, and nobody writes here
        self._file = h5py.File(path, "r", locking=False)
        try:
            self._mapped = MappedFile(path)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._routes.clear()
        self._mapped.close()
        self._file.close()

    def route(self, name: str, info: FieldInfo) -> Route:
        """How the field `name` is read.

        Raises:
            DataError: if it is not what the index says, or lies outside the data set.
            KeyError, ValueError, OSError: if it is not there, no dataset, or unreadable.
        """
        if name not in self._routes:
            self._routes[name] = self._choose(name, info)
        return self._routes[name]

    def _choose(self, name: str, info: FieldInfo) -> Route:
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError("it is a group")
        for place in _elsewhere(dataset):
            self._check_place(name, place)
        self._check_shape(name, dataset, info)
        route = choose(self._source(name, dataset, info))
        if route.name == "plain":
            require_filters(dataset, self.path)
        return route

    def _check_shape(self, name: str, dataset: Any, info: FieldInfo) -> None:
        length = (dataset.shape or ())[:1]
        if dataset.shape[1:] != info.shape or length < (self._samples,):
            told = f"have shape (>={self._samples}, *{info.shape})"
            found = f"shape: {dataset.shape}"
        elif dataset.dtype.newbyteorder("=") != np.dtype(info.dtype).newbyteorder("="):
            told, found = f"be {info.dtype}", f"dtype: {dataset.dtype.name}"
        else:
            return
        raise DataError(
            f"dataset {name} must {told} as its index says ({found})",
            where=str(self.path),
            hint="the file has changed: import it again, or delete its index",
        )

    def _check_place(self, name: str, place: Path) -> None:
        """Check that a file that the shard refers to lies in the data set."""
        real = Path(os.path.realpath(place))
        if not any(real.is_relative_to(root) for root in self._roots):
            raise DataError(
                f"dataset {name} must lie within the folder of its data set (it refers to: "
                f"{place})",
                where=str(self.path),
                hint=f"repack it with `hpc-train data import {self.path} NEW`",
            )

    def _source(self, name: str, dataset: Any, info: FieldInfo) -> Source:
        """What the routes need to know."""
        settings = dataset.id.get_create_plist()
        is_here = (
            not dataset.is_virtual
            and settings.get_external_count() == 0
            and os.path.realpath(dataset.file.filename) == os.path.realpath(self.path)
            and dataset.size > 0
            and info.sample_bytes > 0
        )
        offset = dataset.id.get_offset() if is_here and dataset.chunks is None else None
        return Source(
            dataset,
            self._mapped if is_here else None,
            self.path,
            info.sample_bytes,
            tuple(filters(dataset)),
            tuple(lacking(dataset)),
            is_native=_is_native(dataset),
            offset=offset,
            chunk_table=lambda: self._table(dataset) if is_here else None,
            checksums=self._checksums(name, dataset) if is_here else None,
        )

    def _table(self, dataset: Any) -> ChunkTable | None:
        """Where the chunks are, if that can be trusted."""
        table = read_table(dataset)
        if table is None or not self._file.userblock_size or table.address.max() < 0:
            return table
        # some versions of HDF5 forget the user block: one chunk is compared
        number = int(table.address.argmax())
        corner = np.unravel_index(number, table.grid) * np.array(dataset.chunks)
        _, raw = dataset.id.read_direct_chunk(tuple(int(n) for n in corner))
        try:
            found = self._mapped.read(int(table.address[number]), int(table.size[number]))
        except DataError:
            return None
        return table if found == raw else None

    def _checksums(self, name: str, dataset: Any) -> Any:
        """The checksums of the chunks of a field, where they were written."""
        place = f"{CHECKSUMS}/{name}"
        if place not in self._file or dataset.chunks is None:
            return None
        sums = self._file[place][:]
        is_one_per_chunk = sums.shape == (-(-len(dataset) // dataset.chunks[0]),)
        return sums if is_one_per_chunk and dataset.chunks[1:] == dataset.shape[1:] else None


def stands_alone(path: Path, fields: Sequence[str]) -> bool:
    """Whether a file itself holds all of these fields, and none is virtual or external.

    Raises:
        OSError: if it cannot be opened.
    """
    with h5py.File(path, "r", locking=False) as file:
        for name in fields:
            found = file.get(name)
            if not isinstance(found, h5py.Dataset) or found.is_virtual:
                return False
            is_here = os.path.realpath(found.file.filename) == os.path.realpath(path)
            if not is_here or found.id.get_create_plist().get_external_count():
                return False
    return True


def _is_native(dataset: Any) -> bool:
    """Whether the stored bytes of a number are those in memory, in this byte order and size."""
    order = dataset.dtype.byteorder
    if order not in "=|" + ("<" if sys.byteorder == "little" else ">"):
        return False
    stored = dataset.id.get_type()
    return bool(stored.equal(h5py.h5t.py_create(dataset.dtype, logical=True)))


def _elsewhere(dataset: Any, depth: int = 0) -> Iterator[Path]:
    """The other files that a dataset takes its values from, also through several steps."""
    file = Path(dataset.file.filename)
    yield file
    settings = dataset.id.get_create_plist()
    for number in range(settings.get_external_count()):
        # HDF5 looks for relative names from the working directory on
        yield Path(os.path.abspath(os.fsdecode(settings.get_external(number)[0])))
    if not dataset.is_virtual or depth == _DEEPEST:
        return
    for source in _sources(dataset):
        yield from _through(source, file, depth)


def _sources(dataset: Any) -> Mapping[tuple[str, str], None]:
    """File and dataset of each virtual source, once."""
    return dict.fromkeys((s.file_name, s.dset_name) for s in dataset.virtual_sources())


def _through(source: tuple[str, str], file: Path, depth: int) -> Iterator[Path]:
    """What a virtual source of `file` refers to.

    HDF5 fills in for a source that is missing without a word: here it is an error. Names with a
    % stand for any number of files.
    """
    name, dataset = source
    path = file if name == "." else file.parent / name
    yield path
    if "%" in name:
        return
    with h5py.File(path, "r", locking=False) as opened:
        found = opened.get(dataset)
        if isinstance(found, h5py.Dataset):
            yield from _elsewhere(found, depth + 1)
