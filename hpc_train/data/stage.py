"""Shards copied to a disk of the node, in the background, once for all processes there.

    a shard  --->  its copy (staged_copy.py), used from when it is there
    users.lock    shared by all who are there; the first doubts what it finds (KEY.h5 -> KEY.old),
                  the last removes the folder, or keeps it
    SET.lock      held by the one process that copies the shards of a set; so long as it fails to,
                  by nobody else: other runs copy theirs meanwhile, and each copy has its own lock

Only who copies looks at the shards: thousands of ranks must not. All locks are the kernel's
(flock(2)): who dies gives them back. Until a copy is there, and where one cannot be had, the shard
itself is read. Copies that earlier runs left stay until their room is needed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hpc_train.cores import roam
from hpc_train.data.open_shard import stands_alone
from hpc_train.data.staged_copy import StagedCopy, key_of, try_lock
from hpc_train.errors import DataError

logger = logging.getLogger(__name__)

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
        self._copies = {n: StagedCopy(self.folder, key_of(file)) for n, file in files.items()}
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
            if not self._keep and try_lock(self._users, fcntl.LOCK_EX):
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
            if try_lock(handle, fcntl.LOCK_EX):
                for path in self.folder.glob("*.h5"):
                    path.replace(path.with_suffix(".old"))
                for path in self.folder.glob("*.part"):
                    path.unlink()
            fcntl.flock(handle, fcntl.LOCK_SH)
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)  # the last one has removed the folder meanwhile

    def _run(self) -> None:
        roam()
        names = "".join(sorted(copy.final.name for copy in self._copies.values()))
        name = hashlib.blake2b(names.encode(), digest_size=16).hexdigest()
        try:
            copying = os.open(self.folder / f"{name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            logger.warning("%s: cannot stage: %s", self.folder, error.strerror)
            return
        try:
            is_tried = False
            while self._missing() and not self._is_closing.is_set():
                self._look()
                # who fails keeps the lock: nobody else shall try in vain
                if not is_tried and self._missing() and try_lock(copying, fcntl.LOCK_EX):
                    is_tried = True
                    self._copy_all()
                elif self._missing():
                    self._is_closing.wait(_POLL_SECONDS)
        finally:
            os.close(copying)

    def _missing(self) -> list[int]:
        """The shards that have no copy yet."""
        return [n for n in self._files if n not in self._ready and n not in self._unfit]

    def _look(self) -> None:
        """Note the copies that others have made: one look at the folder, not at each file."""
        names = set(os.listdir(self.folder))
        for number in self._missing():
            copy = self._copies[number].final
            if copy.name in names:
                self._ready[number] = copy

    def _copy_all(self) -> None:
        """Copy what is missing, as long as there is room."""
        started, done = time.monotonic(), 0
        try:
            if not self._has_room(self._missing()):
                return
            while (missing := self._missing()) and not self._is_closing.is_set():
                for number in missing:
                    done += self._copy(number)
                self._look()
                if self._missing() == missing:  # another run copies these
                    self._is_closing.wait(_POLL_SECONDS)
        except OSError as error:
            logger.warning(
                "%s: staging stops (%s): shards are read where they are", self.folder, error
            )
        logger.info(
            "%s: %d of %d shards are staged (%.1f MiB copied in %.1f s)",
            self.folder,
            len(self._ready),
            len(self._files),
            done / 2**20,
            time.monotonic() - started,
        )

    def _has_room(self, missing: Sequence[int]) -> bool:
        """Whether what is missing fits; copies of earlier runs make room if need be."""
        new = [n for n in missing if not self._copies[n].old.exists()]
        wanted = sum(self._files[n].stat().st_size for n in new)
        for path in self._unused():
            if self._fits(wanted):
                break
            other = StagedCopy(self.folder, path.stem)
            with other.alone() as is_alone:
                if is_alone and other.old.exists():
                    other.drop()
        if self._fits(wanted):
            return True
        logger.warning(
            "%s: shards do not fit and are read where they are (needed: %.1f MiB, free: %.1f MiB)",
            self.folder,
            wanted / 2**20,
            shutil.disk_usage(self.folder).free / 2**20,
        )
        return False

    def _fits(self, num_bytes: int) -> bool:
        return num_bytes <= shutil.disk_usage(self.folder).free * (1 - _SPARE)

    def _unused(self) -> Iterator[Path]:
        """What earlier runs left and this one does not want, what was made first comes first."""
        own = {copy.old for copy in self._copies.values()}
        found = [path for path in self.folder.glob("*.old") if path not in own]
        with contextlib.suppress(FileNotFoundError):  # another run wants it, or its room
            found.sort(key=lambda path: path.stat().st_mtime_ns)
        yield from found

    def _copy(self, number: int) -> int:
        """Copy a shard, or take what an earlier run left; gives the bytes that were copied.

        Nothing happens if another process is at it, or has been.

        Raises:
            OSError: if that is impossible, or the copy differs.
        """
        file, copy, done = self._files[number], self._copies[number], 0
        with copy.alone() as is_alone:
            if not is_alone or self._is_closing.is_set():
                return 0
            if not copy.final.exists() and not copy.revive(file, self._is_closing):
                if not stands_alone(file, self._fields):
                    self._unfit.add(number)
                    logger.info("%s: takes data from other files, so it is not staged", file)
                    return 0
                if self._is_closing.is_set():
                    return 0
                done = copy.make(file, self._is_closing) or 0
            if copy.final.exists():
                self._ready[number] = copy.final
        return done


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
