"""Shards copied to a disk of the node, in the background, once for all processes there.

    the shard  --copy, sync, read again-->  KEY.part  --rename-->  KEY.h5     used from here on
                                                                   KEY.json   what it is a copy of
    users.lock    shared by all who are there; the first doubts what it finds (KEY.h5 -> KEY.old,
                  checked before it is used again), the last removes the folder, or keeps it
    copying.lock  held by the one process that copies; so long as it fails to, by nobody else

KEY stands for the path of a shard; what has another size or time by now is copied again. Only who
copies looks at the shards: thousands of ranks must not. Both locks are the kernel's (flock(2)): who
dies gives them back. Until a copy is there, and where one cannot be had, the shard itself is read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hpc_train.data.open_shard import stands_alone
from hpc_train.errors import DataError

logger = logging.getLogger(__name__)

_PIECE_BYTES = 4 * 2**20
_POLL_SECONDS = 0.5
_SPARE = 0.05  # of the free space is left alone


class Stage:
    """Copies of some shards, as far as they are there; a thread makes them until `close`.

    Args:
        folder: of the node's disk; a folder of this user's is made in it.
        files: the shards, by number.
        fields: what will be read: shards that take these from other files are not copied.
        keep: leave the copies for the next run.

    Raises:
        DataError: if the folder cannot be written to.
    """

    def __init__(
        self, folder: Path, files: Mapping[int, Path], fields: Sequence[str], *, keep: bool = False
    ) -> None:
        self.folder = folder / f"hpc_train-stage-{os.getuid()}"
        self._files = dict(files)
        # of the copies, without an ending
        self._places = {number: self.folder / _key(file) for number, file in files.items()}
        self._fields = tuple(fields)
        self._keep = keep
        self._ready: dict[int, Path] = {}
        self._unfit: set[int] = set()  # shards that are read where they are
        self._is_closing = threading.Event()
        try:
            self._users = self._join()
        except OSError as error:
            raise DataError(
                f"cannot stage there: {error.strerror or error}",
                where=str(folder),
                hint="choose another data.stage",
            ) from error
        self._thread = threading.Thread(target=self._run, name="hpc_train-stage", daemon=True)
        self._thread.start()

    def path(self, number: int) -> Path | None:
        """The copy of a shard, if it is there."""
        return self._ready.get(number)

    def reject(self, number: int) -> None:
        """A copy could not be read: from now on the shard itself is."""
        self._unfit.add(number)
        if self._ready.pop(number, None) is not None:
            logger.warning("%s: its copy cannot be read, going on without", self._files[number])

    def wait(self, seconds: float) -> bool:
        """Wait for all copies that can be made; whether there are no more to come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop copying; whoever is the last here removes the copies, if they are not kept."""
        self._is_closing.set()
        self._thread.join()
        try:
            if not self._keep and _try_lock(self._users, fcntl.LOCK_EX):
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            os.close(self._users)

    def _join(self) -> int:
        """Become one of those who are there; the first doubts what it finds."""
        while True:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                if self.folder.lstat().st_uid != os.getuid():
                    raise PermissionError(errno.EPERM, f"{self.folder.name} is another user's")
                handle = os.open(self.folder / "users.lock", os.O_CREAT | os.O_RDWR, 0o600)
            except FileNotFoundError:  # the last one has just removed it
                continue
            if _try_lock(handle, fcntl.LOCK_EX):
                for path in self.folder.glob("*.h5"):
                    path.replace(path.with_suffix(".old"))
                for path in self.folder.glob("*.part"):
                    path.unlink()
            fcntl.flock(handle, fcntl.LOCK_SH)
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)  # the last one has removed the folder meanwhile

    def _run(self) -> None:
        try:
            copying = os.open(self.folder / "copying.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            logger.warning("%s: cannot stage: %s", self.folder, error.strerror)
            return
        try:
            while not self._is_complete() and not self._is_closing.is_set():
                if _try_lock(copying, fcntl.LOCK_EX):
                    self._copy_all()
                    if not self._is_complete():
                        self._is_closing.wait()  # nobody else shall try in vain
                        return
                self._is_closing.wait(_POLL_SECONDS)
        finally:
            os.close(copying)

    def _is_complete(self) -> bool:
        """Whether all copies are there, having looked."""
        for number, place in self._places.items():
            if number not in self._ready and number not in self._unfit:
                copy = place.with_suffix(".h5")
                if copy.exists():
                    self._ready[number] = copy
        return len(self._ready) + len(self._unfit) >= len(self._places)

    def _copy_all(self) -> None:
        """Copy what is missing, as long as there is room."""
        started, done = time.monotonic(), 0
        missing = [n for n in self._files if n not in self._ready and n not in self._unfit]
        try:
            if not self._has_room(missing):
                return
            for number in missing:
                done += self._copy(number)
                self._is_complete()
        except OSError as error:
            logger.warning(
                "%s: staging stops (%s): shards are read where they are", self.folder, error
            )
        seconds = time.monotonic() - started
        logger.info(
            "%s: %d of %d shards are staged (%.1f MiB copied in %.1f s)",
            self.folder,
            len(self._ready),
            len(self._files),
            done / 2**20,
            seconds,
        )

    def _has_room(self, missing: Sequence[int]) -> bool:
        new = [n for n in missing if not self._places[n].with_suffix(".old").exists()]
        wanted = sum(self._files[n].stat().st_size for n in new)
        free = shutil.disk_usage(self.folder).free
        if wanted <= free * (1 - _SPARE):
            return True
        logger.warning(
            "%s: shards do not fit and are read where they are (needed: %.1f MiB, free: %.1f MiB)",
            self.folder,
            wanted / 2**20,
            free / 2**20,
        )
        return False

    def _copy(self, number: int) -> int:
        """Copy a shard, or take what an earlier run left; gives the bytes that were copied.

        Raises:
            OSError: if that is impossible, or the copy differs.
        """
        file, place = self._files[number], self._places[number]
        old, part, final = (place.with_suffix(end) for end in (".old", ".part", ".h5"))
        before = _state(file)
        if old.exists():
            is_copy = _is_copy(old, before, self._is_closing)
            if self._is_closing.is_set():  # what was not read to its end is not known to be bad
                return 0
            if is_copy:
                old.replace(final)
                return 0
            old.unlink()
        if not stands_alone(file, self._fields):
            self._unfit.add(number)
            logger.info("%s: takes data from other files, so it is not staged", file)
            return 0
        crc = _checksum(file, part, self._is_closing)
        if self._is_closing.is_set():
            part.unlink()
            return 0
        _note(part).write_text(json.dumps([*before, crc]), encoding="utf-8")
        is_copy = _is_copy(part, _state(file), self._is_closing)
        if self._is_closing.is_set():
            part.unlink()
            return 0
        if not is_copy:
            part.unlink()
            raise OSError(f"{file.name} changed while it was copied, or its copy is damaged")
        part.replace(final)
        return before[0]


def staging_folder(text: str) -> Path:
    """The folder that `data.stage` names.

    Raises:
        DataError: if it names an environment variable that is not set.
    """
    path = os.path.expanduser(os.path.expandvars(text))
    if "$" in path:
        raise DataError(
            f'data.stage must name variables that are set on every node (data.stage: "{text}")',
            hint='set it, or name a folder, such as data.stage = "/tmp"',
        )
    return Path(path)


def _key(file: Path) -> str:
    return hashlib.blake2b(os.path.abspath(file).encode(), digest_size=16).hexdigest()


def _state(file: Path) -> tuple[int, int]:
    """Size, and time of the last change."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _note(copy: Path) -> Path:
    return copy.with_suffix(".json")


def _checksum(file: Path, copy: Path | None = None, stop: threading.Event | None = None) -> int:
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


def _is_copy(copy: Path, state: tuple[int, int], stop: threading.Event) -> bool:
    """Whether a copy is one of a shard in this state, and intact; False without a note.

    Nothing is known if `stop` was set meanwhile.
    """
    try:
        size, changed, crc = json.loads(_note(copy).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
    if (size, changed) != state or copy.stat().st_size != size:
        return False
    return bool(_checksum(copy, stop=stop) == crc)


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
