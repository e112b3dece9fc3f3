"""The journal of a study: JSON lines, only ever appended, each on the disk before it counts.

    rank 0     append r1 | append r2, r3 | ...              append: write, and go on
    "journal"  [ fsync r1 ....... ][ fsync r2, r3 ..... ]   `synced`: how many are on the disk

What is written outlives the process, what is synced the machine as well. A line that a kill cut
off is the last one, and has no newline: it is dropped, and overwritten by the next record.
"""

from __future__ import annotations

import json
import os
import threading
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
    """A journal that is open for appending; a context manager, which ends its thread.

    Args:
        path: the file; what a kill cut off at its end is removed.

    Attributes:
        records: what it held when it was opened.
        written: how many records were appended since.

    Raises:
        HpcTrainError: if it is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.records, end = _whole(path)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
            _sync_folder(path.parent)
        except OSError as error:
            raise self._failure(error) from error
        self.written = 0
        self._synced = 0
        self._closing = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._sync, name="journal", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Write one record, which is soon on the disk: once `synced` has reached `written`.

        Raises:
            HpcTrainError: if it, or one before it, cannot be written.
        """
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise self._failure(error) from error
        with self._changed:
            self.written += 1
            self._changed.notify_all()

    @property
    def synced(self) -> int:
        """How many of the records that were appended are on the disk.

        Raises:
            HpcTrainError: if the disk refused some.
        """
        if self._error is not None:
            raise self._failure(self._error) from self._error
        return self._synced

    def flush(self) -> None:
        """Return when all records are on the disk.

        Raises:
            HpcTrainError: if the disk refused some.
        """
        with self._changed:
            while self.synced < self.written:
                self._changed.wait()

    def _sync(self) -> None:
        """In the thread: bring to the disk what was written, however many records that is."""
        while True:
            with self._changed:
                while self._synced == self.written and not self._closing:
                    self._changed.wait()
                if self._synced == self.written:
                    return
                count = self.written
            try:
                os.fsync(self._file)
            except OSError as error:
                self._error = error
            with self._changed:
                self._synced = count
                self._changed.notify_all()
            if self._error is not None:
                return

    def _failure(self, error: OSError) -> HpcTrainError:
        return HpcTrainError(
            f"cannot write the journal: {error.strerror}",
            where=str(self._path),
            hint="free space there, and start the same command again",
        )

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        os.close(self._file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
