"""The journal of a study: JSON lines, only ever appended, each on the disk before it counts.

A line that a kill cut off is the last one, and has no newline: it is dropped, and overwritten by
the next record.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hpc_train.errors import HpcTrainError

NAME = "journal.jsonl"
Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """The records of a journal, oldest first; none if there is no such file.

    Raises:
        HpcTrainError: if a line in the middle is damaged.
    """
    return _whole(path)[0]


def _whole(path: Path) -> tuple[list[Record], int]:
    """The records, and how many bytes of the file they take."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    end = data.rfind(b"\n") + 1
    records = []
    for number, line in enumerate(data[:end].splitlines(), 1):
        try:
            record = json.loads(line)
            records.append({**record, "kind": str(record["kind"])})
        except (ValueError, TypeError, KeyError) as error:
            raise HpcTrainError(
                "a line of the journal is damaged", where=f"{path}:{number}"
            ) from error
    return records, end


class Journal:
    """A journal that is open for appending; a context manager.

    Args:
        path: the file; what a kill cut off at its end is removed.

    Attributes:
        records: what it held when it was opened.

    Raises:
        HpcTrainError: if it is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.records, end = _whole(path)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
            _sync_folder(path.parent)
        except OSError as error:
            raise HpcTrainError(
                f"cannot write the journal: {error.strerror}", where=str(path)
            ) from error
        self._path = path

    def append(self, record: Record) -> None:
        """Add one record; it is on the disk when this returns."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            raise HpcTrainError(
                f"cannot write the journal: {error.strerror}",
                where=str(self._path),
                hint="free space there, and start the same command again",
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
