"""CPU quotas: how much of its cores' time a process may use (control groups, version 2 and 1).

period  |####--------|####--------|####----      #: runs, -: stands still until the next period
        quota         quota        quota         whoever spins while it waits spends it, too
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Quota:
    """A limit on CPU time.

    Attributes:
        cpus: CPU seconds a second, > 0.
        group: the control group that all have in common whom it limits together.
        period_seconds: who has spent what is due stands still to the end of such a period.
    """

    cpus: float
    group: str
    period_seconds: float = 0.1


def cpu_quota(root: Path = _ROOT, own: Path = _OWN) -> Quota | None:
    """The tightest limit on this process, of its control group and of those around it.

    Args:
        root: where control groups are mounted.
        own: the kernel's file of the groups of this process.

    Returns:
        None without a limit, and where the kernel does not tell.
    """
    found = [quota for group in _groups(root, own) if (quota := _limit(group)) is not None]
    return min(found, key=lambda quota: quota.cpus, default=None)


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """The folders of the group of this process and of all groups around it."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    places = {root: "/", root / "cpu": "/"}
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            places[root] = path
        elif "cpu" in controllers.split(","):
            places[root / "cpu"] = path
    for mount, path in places.items():
        inner = PurePosixPath(path.lstrip("/"))
        yield from (mount / part for part in (inner, *inner.parents))


def _limit(group: Path) -> Quota | None:
    """The limit that a group states itself."""
    try:
        limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            limit = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
        except OSError:
            return None
    try:
        cpus, seconds = int(limit) / int(period), int(period) / 1e6
    except (ValueError, ZeroDivisionError):
        return None
    return Quota(cpus, str(group), seconds) if cpus > 0 else None
