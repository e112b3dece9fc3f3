"""File systems: of which type the one of a path is, and whether a network is in between."""

from __future__ import annotations

import os
import re
from pathlib import Path

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


def read_mountinfo() -> str:
    """The text of /proc/self/mountinfo; empty where there is none."""
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def type_of(path: Path) -> str:
    """The type of the file system of a path, or of its nearest existing parent."""
    full = Path(os.path.realpath(path))
    existing = next((folder for folder in (full, *full.parents) if folder.exists()), Path("/"))
    return mount_of(str(existing), read_mountinfo())[1]


def is_network(kind: str) -> bool:
    """Whether a file system of this type is reached over a network, and may be shared by nodes."""
    return kind in _NETWORK or kind in _NETWORK_FUSE
