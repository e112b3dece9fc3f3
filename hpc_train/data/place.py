"""A folder that appears whole or not at all.

    .NAME.HOST.PID.tmp   is filled, synced        ->   NAME
    .NAME.HOST.PID.old   what NAME was before     ->   removed

Everything happens beside the destination, so that a rename is atomic.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from hpc_train.data.index import NAME
from hpc_train.data.shard import sync
from hpc_train.errors import DataError, UsageError


class Place:
    """The destination of a data set: `folder` is filled, then `commit` or `discard` is called.

    Raises:
        UsageError: if something is there already that may not be replaced.
        DataError: if no folder can be made.
    """

    def __init__(self, dest: Path, *, overwrite: bool = False) -> None:
        self.dest = Path(os.path.abspath(dest))
        check_destination(dest, overwrite=overwrite)
        self._overwrite = overwrite
        self._made: list[Path] = []
        mark = f"{socket.gethostname()}.{os.getpid()}"
        self.folder = self.dest.with_name(f".{self.dest.name}.{mark}.tmp")
        self._old = self.dest.with_name(f".{self.dest.name}.{mark}.old")
        try:
            self._make_parents()
            _sweep(self.dest)
            self.folder.mkdir()
        except OSError as error:
            self._remove_parents()
            raise DataError(f"cannot write: {error.strerror}", where=str(dest)) from error

    def commit(self) -> None:
        """Give the folder its name."""
        sync(self.folder)
        if self.dest.exists():
            check_destination(self.dest, overwrite=self._overwrite)
            self.dest.rename(self._old)
        try:
            self.folder.rename(self.dest)
        except OSError:
            if self._old.exists():
                self._old.rename(self.dest)
            raise
        shutil.rmtree(self._old, ignore_errors=True)
        sync(self.dest.parent)

    def discard(self) -> None:
        """Remove everything that was made."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_parents()

    def _make_parents(self) -> None:
        missing = [p for p in self.dest.parents if not p.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            self._made.append(parent)

    def _remove_parents(self) -> None:
        for parent in reversed(self._made):
            try:
                parent.rmdir()
            except OSError:
                return


def check_destination(dest: Path, *, overwrite: bool) -> None:
    """Check that a data set may be written to `dest`.

    Only an empty folder, or with `overwrite` a data set, may be there: nothing else is removed.

    Raises:
        UsageError: if something else is there.
    """
    if not dest.exists() and not dest.is_symlink():
        return
    if dest.is_dir() and not any(dest.iterdir()):
        return
    if not dest.is_dir() or not (dest / NAME).is_file():
        raise UsageError(
            "destination must be a new folder, or a data set to overwrite",
            where=str(dest),
            hint="choose another destination",
        )
    if not overwrite:
        raise UsageError(
            "destination exists already", where=str(dest), hint="--overwrite replaces it"
        )
    strange = [p.name for p in dest.iterdir() if p.name != NAME and not _is_shard(p)]
    if strange:
        raise UsageError(
            f"a data set to overwrite must hold nothing else (found: {sorted(strange)[0]})",
            where=str(dest),
            hint="choose another destination, or move that away",
        )


def _is_shard(path: Path) -> bool:
    return path.is_file() and path.name.startswith("shard-") and path.suffix == ".h5"


def _sweep(dest: Path) -> None:
    """Remove what killed processes of this host left behind on their way to `dest`."""
    head = f".{dest.name}.{socket.gethostname()}."
    for path in dest.parent.iterdir():
        pid = path.name.removeprefix(head).removesuffix(".tmp")
        if path.name == f"{head}{pid}.tmp" and pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
