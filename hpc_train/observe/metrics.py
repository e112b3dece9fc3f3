"""`metrics.jsonl`: one JSON document a line, for every step, evaluation and event."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from hpc_train.observe.sink import Record, Start

_FLUSH_SECONDS = 1.0


class MetricsFile:
    """Appends records to a file; what is beyond the step of a resumed run is cut off first.

    Args:
        path: the file.
        after_batch: the batch at which the run goes on.
        flush_seconds: for how long steps may stay in memory that dies with the process.
    """

    def __init__(self, path: Path, after_batch: int, flush_seconds: float = _FLUSH_SECONDS) -> None:
        self._path = path
        self._patience = flush_seconds
        if path.exists():
            _cut(path, after_batch)
        self._file = path.open("a", encoding="utf-8")
        self._flushed = time.monotonic()

    def start(self, start: Start) -> None:
        """Nothing to write: the first step tells."""

    def record(self, record: Record) -> None:
        """Write `record`; numbers that are not finite become null, as JSON has none."""
        try:
            line = json.dumps(record, allow_nan=False)
        except ValueError:
            line = json.dumps(finite(record))
        self._file.write(line + "\n")
        if record["kind"] != "step" or time.monotonic() - self._flushed > self._patience:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Have all of it reach the disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()


def last_batch(path: Path) -> int:
    """The batch of the last step that a file tells of; -1 if there is none."""
    last = -1
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    last = int(record["batch"]) if record["kind"] == "step" else last
                except (ValueError, KeyError, TypeError):
                    continue
    except FileNotFoundError:
        return -1
    return last


def finite(value: Any) -> Any:
    """The same JSON with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def _cut(path: Path, batch: int) -> None:
    """Keep the records of batches up to `batch`; a half-written last line is dropped."""
    draft = path.with_suffix(".jsonl.tmp")
    with (
        path.open(encoding="utf-8", errors="replace") as old,
        draft.open("w", encoding="utf-8") as new,
    ):
        for line in old:
            try:
                keep = line.endswith("\n") and json.loads(line)["batch"] <= batch
            except (ValueError, KeyError, TypeError):
                keep = False
            if keep:
                new.write(line)
    draft.replace(path)
