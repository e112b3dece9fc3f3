"""Writing a data set: samples stream in, shards come out, and the folder appears at the end.

append(any number of samples) -> buffer of one chunk -> ShardFile -> ... -> index.json -> rename
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.hdf5 import CHECKSUMS, first_line, is_numeric
from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.data.layout import Layout, plan_layout
from hpc_train.data.moments import Moments, has_statistics
from hpc_train.data.place import Place
from hpc_train.data.shard import Arrays, ShardFile
from hpc_train.errors import DataError


class ShardWriter:
    """Writes the data set `dest`; a context manager that leaves all of it or nothing.

    One chunk of each field is held in memory. Equal samples give equal bytes, however they are
    portioned (but with lzf, whose encoder is not deterministic).

    Args:
        dest: folder to be made; an existing data set is refused unless `overwrite`.
        fields: shape, dtype and class names by name; `low`, `high`, `mean` and `std` are found
            while writing.
        layout: rows of chunks and samples of shards; by default as `plan_layout` has it.
        source, licence: where the data come from, under which terms.

    Attributes:
        index: of what was written, once the writer is closed.

    Raises:
        UsageError: if the destination may not be replaced.
        DataError: if samples do not fit the fields, or the disk is full.
    """

    index: Index

    def __init__(
        self,
        dest: Path,
        fields: Mapping[str, FieldInfo],
        layout: Layout | None = None,
        *,
        source: str = "",
        licence: str = "",
        overwrite: bool = False,
    ) -> None:
        _check_fields(fields)
        self._fields = dict(fields)
        self._layout = layout or plan_layout(fields)
        self._source, self._licence = source, licence
        self._ranges: dict[str, tuple[int, int]] = {}
        self._moments = {n: Moments(f.shape) for n, f in fields.items() if has_statistics(f)}
        self._buffer = {
            name: np.zeros((self._layout.chunk_rows, *info.shape), info.dtype)
            for name, info in fields.items()
        }
        self._filled = 0
        self._shard: ShardFile | None = None
        self._shards: list[Shard] = []
        self._place = Place(dest, overwrite=overwrite)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.discard()
        else:
            self.commit()

    @property
    def num_samples(self) -> int:
        """Samples that were appended so far."""
        open_samples = self._shard.samples if self._shard else 0
        return sum(shard.samples for shard in self._shards) + open_samples + self._filled

    def append(self, arrays: Arrays) -> None:
        """Add samples: one array of shape (n, *field shape) for every field, n >= 0."""
        count = self._check(arrays)
        done = 0
        while done < count:
            take = min(count - done, self._room() - self._filled)
            for name, array in arrays.items():
                self._buffer[name][self._filled : self._filled + take] = array[done : done + take]
            done += take
            self._filled += take
            if self._filled == self._room():
                self._flush()

    def commit(self) -> None:
        """Write what is left and the index, and give the folder its name; or leave nothing."""
        try:
            with self._disk_errors():
                self._flush()
                self._close_shard()
                if not self._shards:
                    raise DataError("a data set must hold samples (samples: 0)")
                infos = self._infos()
                self.index = Index(infos, tuple(self._shards), self._source, self._licence)
                self.index.write(self._place.folder)
                self._place.commit()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None
        self._place.discard()

    def _room(self) -> int:
        """Rows that the buffer may hold: a chunk, or what is left of the shard."""
        written = self._shard.samples if self._shard else 0
        return min(self._layout.chunk_rows, self._layout.samples_per_shard - written)

    def _flush(self) -> None:
        if self._filled == 0:
            return
        with self._disk_errors():
            if self._shard is None:
                name = f"shard-{len(self._shards):05d}.h5"
                self._shard = ShardFile(self._place.folder / name, self._fields, self._layout)
            self._note_ranges()
            for name, moments in self._moments.items():
                moments.add(self._buffer[name][: self._filled])
            self._shard.append(self._buffer, self._filled)
            self._filled = 0
            if self._shard.samples == self._layout.samples_per_shard:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
            name, samples = self._shard.path.name, self._shard.samples
            self._shards.append(Shard(name, samples, self._layout.chunk_rows))
            self._shard = None

    def _note_ranges(self) -> None:
        for name, info in self._fields.items():
            if info.shape == () and np.dtype(info.dtype).kind in "iu":
                values = self._buffer[name][: self._filled]
                low, high = int(values.min()), int(values.max())
                before = self._ranges.get(name, (low, high))
                self._ranges[name] = min(low, before[0]), max(high, before[1])

    def _infos(self) -> dict[str, FieldInfo]:
        nothing = (None, None)
        infos = {}
        for name, info in self._fields.items():
            low, high = self._ranges.get(name, nothing)
            mean, std = self._moments[name].result() if name in self._moments else ((), ())
            infos[name] = dataclasses.replace(info, low=low, high=high, mean=mean, std=std)
        return infos

    def _check(self, arrays: Arrays) -> int:
        """Check that samples fit the fields; gives how many there are."""
        if arrays.keys() != self._fields.keys():
            raise DataError(
                f"samples must have the fields {', '.join(self._fields)} "
                f"(fields: {', '.join(arrays)})"
            )
        counts = {len(array) for array in arrays.values()}
        if len(counts) != 1:
            raise DataError(f"fields must have equally many samples (samples: {sorted(counts)})")
        for name, array in arrays.items():
            info = self._fields[name]
            if array.shape[1:] != info.shape or not _fits(array, info.dtype):
                raise DataError(
                    f"field {name} must be {info.dtype} {info.shape} "
                    f"({array.dtype.name} {array.shape[1:]})"
                )
        return counts.pop()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn what the disk complains of into an error with a remedy."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            text = str(error)
            is_full = is_full or "No space left" in text or "quota exceeded" in text
            reason = "no space left on the disk" if is_full else first_line(error)
            raise DataError(
                f"cannot write: {reason}",
                where=str(self._place.dest),
                hint="nothing was kept; make room, or choose another destination",
            ) from error


def _fits(array: NDArray[Any], dtype: str) -> bool:
    """Whether values go into the field as they are (the byte order may differ)."""
    return array.dtype.newbyteorder("=") == np.dtype(dtype)


def _check_fields(fields: Mapping[str, FieldInfo]) -> None:
    if not fields:
        raise DataError("a data set must have fields")
    for name, info in fields.items():
        if not name or name.startswith((CHECKSUMS, "/")) or name.endswith("/"):
            raise DataError(f'"{name}" cannot be the name of a field')
        if not is_numeric(np.dtype(info.dtype)):
            raise DataError(
                f"field {name} must hold booleans, integers or floats of up to 64 bits "
                f"(dtype: {info.dtype})"
            )
        if 0 in info.shape:
            raise DataError(f"field {name} must have values (shape: {info.shape})")
