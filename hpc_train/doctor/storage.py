"""File systems: of which type one is, how much fits, and what a process may do there; by asking."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from hpc_train.doctor.check import Facts
from hpc_train.mounts import mount_of, read_mountinfo


def place(path: Path) -> Facts:
    """What can be said about a path, or about its nearest existing parent."""
    full = Path(os.path.realpath(path))
    existing = next((folder for folder in (full, *full.parents) if folder.exists()), Path("/"))
    point, kind = mount_of(str(existing), read_mountinfo())
    space = os.statvfs(existing)
    folder = existing if existing.is_dir() else existing.parent
    return {
        "path": str(full),
        "exists": existing == full,
        "readable": os.access(existing, os.R_OK),
        "mount": point,
        "type": kind,
        "free_bytes": space.f_bavail * space.f_frsize,
        "total_bytes": space.f_blocks * space.f_frsize,
        "write_error": _write_error(folder),
        "lock_error": _lock_error(existing),
    }


def _write_error(folder: Path) -> str | None:
    """Why no file can be made in a folder; None if it can (tried: permissions alone may lie)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror


def _lock_error(path: Path) -> str | None:
    """Why a file or folder cannot be locked as HDF5 would; None if it can."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return None  # another process holds the lock: locking works
    except OSError as error:
        return error.strerror
    finally:
        os.close(descriptor)
    return None


def human(count: float) -> str:
    """Bytes with a binary unit: 1536 is "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
