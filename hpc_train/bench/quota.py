"""Ranks of unlike speed on one machine: control groups that get a part of a core (Linux, root)."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu")  # version 1


@contextmanager
def quota(part: float, period_us: int = 5000) -> Iterator[Path | None]:
    """A control group that gets `part` of one core; gives its path, None where there is none.

    Args:
        part: of one core, > 0.
        period_us: in which the part is given; long ones make steps stall.
    """
    group = CGROUP / f"hpc_train-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(period_us))
        (group / "cpu.cfs_quota_us").write_text(str(round(part * period_us)))
        (group / "cpu.shares").write_text("262144")  # the quota alone shall limit it, not others
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def inside(group: Path, call: Sequence[str], only_rank: int | None = None) -> list[str]:
    """The same command inside a control group; under Open MPI, its rank `only_rank` alone."""
    enter = f"echo $$ > {shlex.quote(str(group / 'cgroup.procs'))}"
    if only_rank is not None:
        enter = f'if [ "$OMPI_COMM_WORLD_RANK" = {only_rank} ]; then {enter}; fi'
    return ["sh", "-c", f"{enter}; exec {shlex.join(call)}"]
