"""File systems: of which type one is, how much fits, and what a process may do there; by asking."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path

from hpc_train.doctor.check import Facts

_NETWORK = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "9p", "afs", "pvfs2"),
    *("panfs", "wekafs", "glusterfs", "ocfs2", "gfs2", "daos", "orangefs"),
}
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.dfuse", "fuse.juicefs")


def mount_of(path: str, mountinfo: str) -> tuple[str, str]:
    """The mount point and the type of the file system that an absolute path lies on.

    Args:
        path: absolute, without symbolic links.
        mountinfo: the text of /proc/self/mountinfo (proc_pid_mountinfo(5)); of mounts on one
            point the last hides the others.
    """
    best = ("", "unknown")
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
        kind = fields[fields.index("-", 6) + 1]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best


def is_network(kind: str) -> bool:
    """Whether a file system of this type is reached over a network, and may be shared by nodes."""
    return kind in _NETWORK or kind in _NETWORK_FUSE


def place(path: Path) -> Facts:
    """What can be said about a path, or about its nearest existing parent."""
    full = Path(os.path.realpath(path))
    existing = next((folder for folder in (full, *full.parents) if folder.exists()), Path("/"))
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        mountinfo = ""
    point, kind = mount_of(str(existing), mountinfo)
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
