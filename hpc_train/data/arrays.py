"""Results as an HDF5 file: one dataset per array, there completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import DataError


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[np.generic]], notes: Mapping[str, Any]
) -> None:
    """Write `arrays`, and `notes` as attributes of the file; one of that name is replaced.

    Raises:
        DataError: if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(draft, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
            file.attrs.update(notes)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise DataError(f"cannot write: {reason}", where=str(path)) from error


class Rows:
    """An HDF5 file whose rows several ranks write in place: `begin` on one of them, then all.

    begin   rank 0     a draft with all datasets at their full size, contiguous
    write   all ranks  their rows, each at its offset; HDF5 itself is not asked any more
    finish  rank 0     fsync, then the draft gets its name

    Args:
        path: the file; one of that name is replaced at the end.
        draft, offsets: what `begin` told, on all ranks.
    """

    def __init__(self, path: Path, draft: str, offsets: Mapping[str, int]) -> None:
        self._path, self._draft, self._offsets = path, Path(draft), offsets

    @staticmethod
    def begin(
        path: Path,
        kinds: Mapping[str, tuple[Sequence[int], str]],
        notes: Mapping[str, Any],
    ) -> tuple[str, dict[str, int]]:
        """Make the draft; gives its path and where each dataset begins, in bytes.

        Args:
            kinds: shape and dtype of each dataset, the first axis the row.
            notes: attributes of the file.

        Raises:
            DataError: if it cannot be written, such as where space is lacking.
        """
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        offsets = {}
        try:
            with h5py.File(draft, "w") as file:
                for name, (shape, dtype) in kinds.items():
                    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
                    space = h5py.h5s.create_simple(tuple(shape))
                    made = h5py.h5d.create(file.id, name.encode(), kind, space, early)
                    offsets[name] = int(made.get_offset())
                file.attrs.update(notes)
            size = draft.stat().st_size
            with draft.open("r+b") as raw:
                os.posix_fallocate(raw.fileno(), 0, size)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise _refused(path, error) from error
        return str(draft), offsets

    def write(self, start: int, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write rows [start, start + n) of each dataset.

        Raises:
            DataError: if the file system refuses.
        """
        try:
            with self._draft.open("r+b") as file:
                for name, array in arrays.items():
                    row = array[:1].nbytes
                    file.seek(self._offsets[name] + start * row)
                    file.write(np.ascontiguousarray(array).data)
        except OSError as error:
            raise _refused(self._path, error) from error

    def finish(self) -> None:
        """Give the file its name, once all have written; by one rank.

        Raises:
            DataError: if the file system refuses.
        """
        try:
            with self._draft.open("r+b") as file:
                os.fsync(file.fileno())
            self._draft.replace(self._path)
        except OSError as error:
            raise _refused(self._path, error) from error

    def discard(self) -> None:
        """Remove the draft."""
        self._draft.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write: {error.strerror or error}", where=str(path))
