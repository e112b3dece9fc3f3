"""The shards that are open, and what is done to them: tried again where the system fails."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hpc_train.data.dataset import Dataset
from hpc_train.data.hdf5 import first_line
from hpc_train.data.index import FieldInfo
from hpc_train.data.open_shard import OpenShard
from hpc_train.data.routes import Route
from hpc_train.data.stage import Stage
from hpc_train.errors import DataError

logger = logging.getLogger(__name__)

OPEN_FILES = 64
_DELAYS = (0.05, 0.2, 0.8)  # seconds before a failed read is tried again
_HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

T = TypeVar("T")


class OpenShards:
    """Opens shards when first needed and keeps the last 64 open; safe to use from several threads.

    Args:
        dataset: whose shards.
        fields: what is read of them.
        stage: copies of shards that are read in place of them.
        lock: held while shards are opened and closed.
    """

    def __init__(
        self,
        dataset: Dataset,
        fields: Mapping[str, FieldInfo],
        stage: Stage | None,
        lock: threading.RLock,
    ) -> None:
        self._dataset = dataset
        self._fields = fields
        self._stage = stage
        self._lock = lock
        self._files: OrderedDict[int, OpenShard] = OrderedDict()
        self._paths = {extent.shard: dataset.path(extent.shard) for extent in dataset.extents()}

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for shard in self._files.values():
                shard.close()
            self._files.clear()

    def attempt(
        self, number: int, name: str, rows: tuple[int, int], act: Callable[[Route], T]
    ) -> T:
        """`act` on the route to a field; tried again where the system fails, then a DataError."""
        for delay in (*_DELAYS, None):
            path = (self._stage and self._stage.path(number)) or self._paths[number]
            try:
                with self._open(number, path) as shard:
                    return act(shard.route(name, self._fields[name]))
            except DataError:
                if self._gives_up_copy(number, path):
                    return self.attempt(number, name, rows, act)
                raise
            except (OSError, KeyError, ValueError, RuntimeError) as error:
                if self._gives_up_copy(number, path):
                    return self.attempt(number, name, rows, act)
                where = str(self._paths[number])
                what = f"rows {rows[0]}..{rows[1] - 1} of {name}"
                if delay is None or isinstance(error, _HOPELESS) or not isinstance(error, OSError):
                    raise DataError(
                        f"cannot read {what}: {_told(error)}",
                        where=where,
                        hint=f"hpc-train data verify {self._dataset.root}",
                    ) from error
                logger.warning("%s: cannot read %s, trying again: %s", where, what, _told(error))
            self._forget(number)
            time.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _gives_up_copy(self, number: int, path: Path) -> bool:
        """Whether `path` is a copy of a shard: no more, as the shard itself may be in order."""
        if self._stage is None or path == self._paths[number]:
            return False
        self._stage.reject(number)
        return True

    @contextmanager
    def _open(self, number: int, path: Path) -> Iterator[OpenShard]:
        """A shard, or a copy of it, that stays open while it is used."""
        with self._lock:
            if number in self._files and self._files[number].path != path:
                other = self._files.pop(number)
                if not other.users:  # else the last of them closes it
                    other.close()
            if number in self._files:
                self._files.move_to_end(number)
            else:
                samples = self._dataset.index.shards[number].samples
                self._files[number] = OpenShard(path, self._dataset.root, samples)
                idle = [n for n, shard in self._files.items() if not shard.users and n != number]
                for old in idle[: max(0, len(self._files) - OPEN_FILES)]:
                    self._files.pop(old).close()
            shard = self._files[number]
            shard.users += 1
        try:
            yield shard
        finally:
            with self._lock:
                shard.users -= 1
                if not shard.users and self._files.get(number) is not shard:
                    shard.close()

    def _forget(self, number: int) -> None:
        """Close a shard whose handles may be stale, if nobody else is using it."""
        with self._lock:
            if number in self._files and not self._files[number].users:
                self._files.pop(number).close()


def _told(error: Exception) -> str:
    """An error's first line, with its errno if that does not stand there."""
    code, text = getattr(error, "errno", None), first_line(error)
    return f"{text} (errno {code})" if code and f"rrno {code}" not in text else text
