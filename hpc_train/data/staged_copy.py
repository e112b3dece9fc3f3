"""The copy of one shard on a disk of the node: made by one process at a time, checked, named.

    the shard  --copy, sync, read again-->  KEY.part  --rename-->  KEY.h5     used from here on
                                                                   KEY.json   what it is a copy of
    KEY.old  what an earlier run left: checked before it is KEY.h5 again, or removed

KEY stands for the path of the shard. Whoever touches any of these holds the lock of KEY.part
(flock(2)), which the kernel gives back when its holder dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PIECE_BYTES = 4 * 2**20


class StagedCopy:
    """Where the copy of a shard is, will be, or was.

    Args:
        folder: of the copies.
        key: of the shard, as `key_of` gives it.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.final = folder / f"{key}.h5"
        self.old = folder / f"{key}.old"
        self._part = folder / f"{key}.part"
        self._note = folder / f"{key}.json"

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other process makes or removes this copy; none does until the end."""
        handle = os.open(self._part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            is_alone = try_lock(handle, fcntl.LOCK_EX) and _is_at(handle, self._part)
            try:
                yield is_alone
            finally:
                if is_alone and _is_at(handle, self._part):
                    self._part.unlink()
        finally:
            os.close(handle)

    def make(self, file: Path, stop: threading.Event) -> int | None:
        """Copy `file`; called `alone`. Gives its bytes, or None if `stop` came first.

        Raises:
            OSError: if that is impossible, or the copy differs.
        """
        before = _state(file)
        crc = checksum(file, self._part, stop)
        if stop.is_set():
            return None
        self._note.write_text(json.dumps([*before, crc]), encoding="utf-8")
        is_copy = self._is_copy(self._part, _state(file), stop)
        if stop.is_set():
            return None
        if not is_copy:
            raise OSError(f"{file.name} changed while it was copied, or its copy is damaged")
        self._part.replace(self.final)
        return before[0]

    def revive(self, file: Path, stop: threading.Event) -> bool:
        """Whether what an earlier run left is a copy of `file` and is used again; called `alone`.

        If not it is removed; but not if `stop` came before that was known.
        """
        if not self.old.exists():
            return False
        is_copy = self._is_copy(self.old, _state(file), stop)
        if stop.is_set():
            return False
        if is_copy:
            self.old.replace(self.final)
        else:
            self.drop()
        return is_copy

    def drop(self) -> None:
        """Remove what an earlier run left; called `alone`."""
        self.old.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _is_copy(self, copy: Path, state: tuple[int, int], stop: threading.Event) -> bool:
        """Whether a copy is one of a shard in this state, and intact; False without a note.

        Nothing is known if `stop` was set meanwhile.
        """
        try:
            size, changed, crc = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return False
        if (size, changed) != state or copy.stat().st_size != size:
            return False
        return bool(checksum(copy, stop=stop) == crc)


def key_of(file: Path) -> str:
    """The name of the copies of a shard."""
    return hashlib.blake2b(os.path.abspath(file).encode(), digest_size=16).hexdigest()


def try_lock(handle: int, kind: int) -> bool:
    """Whether an open file could be locked."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def checksum(file: Path, copy: Path | None = None, stop: threading.Event | None = None) -> int:
    """CRC-32 of a file, copied on the way; ends early at `stop`."""
    crc = 0
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with ExitStack() as stack:
        source = stack.enter_context(file.open("rb", buffering=0))
        target = stack.enter_context(copy.open("wb", buffering=0)) if copy else None
        while (count := source.readinto(buffer)) and not (stop and stop.is_set()):
            crc = zlib.crc32(buffer[:count], crc)
            place = 0
            while target and place < count:
                place += target.write(buffer[place:count])
        if target:  # so that it is read again from the disk
            os.fsync(target.fileno())
            os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return crc


def _state(file: Path) -> tuple[int, int]:
    """Size, and time of the last change."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
