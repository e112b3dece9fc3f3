"""HDF5 files as they are found: what lies in them, and reading it in pieces that fit memory."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpc_train.errors import DataError

CHECKSUMS = "_checksums"  # group of the checksums in our own shards
SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4")
PIECE_BYTES = 16 * 2**20
LAYER_BYTES = 256 * 2**20  # the largest chunk layer that is read at once, so that it is read once

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset"}
_FILTERS |= {307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle"}
_FILTERS |= {32013: "zfp", 32015: "zstd", 32026: "blosc2"}
_NO_COMPRESSION = {"shuffle", "fletcher32"}


class Stored(NamedTuple):
    """How one HDF5 dataset is stored.

    Attributes:
        shape: of the whole dataset, first axis the sample.
        dtype: NumPy's name of the stored type.
        chunks: shape of one chunk, None if the dataset is contiguous.
        compression: names of the filters that compress, such as "gzip", None without.
    """

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None
    compression: str | None

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample as it is in memory."""
        count = int(np.prod(self.shape[1:], dtype=np.int64))
        return count * np.dtype(self.dtype).itemsize

    @property
    def layer_rows(self) -> int | None:
        """Samples of one chunk layer, None if the dataset is contiguous."""
        return self.chunks[0] if self.chunks else None


def open_file(path: Path) -> Any:
    """`path` opened for reading, without file locks; a context manager.

    Raises:
        DataError: if it is missing, unreadable or no HDF5 file.
    """
    try:
        with path.open("rb"):
            pass
        if not h5py.is_hdf5(path):
            raise DataError("not an HDF5 file", where=str(path))
        # parallel file systems often break HDF5's locking, and nobody writes here
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise DataError(f"cannot open: {reason}", where=str(path)) from error


def available(file: Path | Any) -> dict[str, Stored]:
    """The datasets of an HDF5 file (a path or an open `h5py.File`) by their slash path."""
    if isinstance(file, Path):
        with open_file(file) as opened:
            return available(opened)
    found: dict[str, Stored] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(CHECKSUMS + "/"):
            found[name] = stored(item)

    file.visititems(visit)
    return found


def stored(dataset: Any) -> Stored:
    """How an open `h5py.Dataset` is stored; a dataset without data has the shape ()."""
    names = [name for name in filters(dataset) if name not in _NO_COMPRESSION]
    return Stored(
        shape=tuple(dataset.shape or ()),
        dtype=dataset.dtype.name if is_numeric(dataset.dtype) else str(dataset.dtype),
        chunks=dataset.chunks,
        compression="+".join(names) or None,
    )


def filters(dataset: Any) -> list[str]:
    """Names of the filters that every chunk went through, in their order."""
    return [_filter_name(number) for number in _filter_numbers(dataset)]


def lacking(dataset: Any) -> list[str]:
    """Names of those filters of a dataset that HDF5 cannot undo here.

    Filters that HDF5 does not bring itself come with `hdf5plugin`, of the extra `codecs`.
    """
    numbers = _filter_numbers(dataset)
    if not all(map(h5py.h5z.filter_avail, numbers)):
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # tells HDF5 of its filters
    return [_filter_name(n) for n in numbers if not h5py.h5z.filter_avail(n)]


def require_filters(dataset: Any, where: Path) -> None:
    """Check that HDF5 can read a dataset through its filters.

    Raises:
        DataError: naming those that are missing, and what brings them.
    """
    missing = lacking(dataset)
    if missing:
        raise DataError(
            f"dataset {dataset.name.lstrip('/')} needs a filter that is not installed "
            f"({', '.join(missing)})",
            where=str(where),
            hint="pip install 'hpc-train[codecs]'",
        )


def _filter_numbers(dataset: Any) -> list[int]:
    settings = dataset.id.get_create_plist()
    return [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]


def _filter_name(number: int) -> str:
    return _FILTERS.get(number, f"filter {number}")


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether samples of this type can become tensors: booleans, integers, floats up to 64 bits."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def pieces(dataset: Any, rows: int | None = None) -> Iterator[tuple[int, int]]:
    """The ranges [first, stop) of rows in which to read a dataset from beginning to end.

    They follow its chunk layers, so that no chunk is decoded twice, as long as a layer has at most
    256 MiB; `rows` is how many are wanted at once, by default about 16 MiB.
    """
    length = len(dataset)
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64)))
    step = rows or max(1, PIECE_BYTES // row_bytes)
    if dataset.chunks and dataset.chunks[0] * row_bytes <= LAYER_BYTES:
        layer = dataset.chunks[0]
        step = -(-step // layer) * layer if step < layer else step // layer * layer
    for first in range(0, length, step):
        yield first, min(first + step, length)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without a full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
