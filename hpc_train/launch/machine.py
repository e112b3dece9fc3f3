"""What of this machine decides how ranks are started: slots, the user, the network."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
# InfiniBand, Omni-Path, RoCE and EFA show up in the first, Slingshot in the second.
_FAST_NETWORKS = (Path("/sys/class/infiniband"), Path("/sys/class/cxi"))


@dataclass(frozen=True)
class Machine:
    """Where ranks would be started.

    Attributes:
        slots: how many ranks launchers accept without being told to oversubscribe, >= 1.
        is_root: whether the user is root, which Open MPI refuses unless told otherwise.
        fast_network: whether there is a network that an MPI would have a driver for.
    """

    slots: int
    is_root: bool
    fast_network: bool


def this_machine(environ: Mapping[str, str]) -> Machine:
    """The machine (or the allocation) of this process."""
    slots = allocated_slots(environ) or physical_cores(os.sched_getaffinity(0))
    fast = any(folder.is_dir() and any(folder.iterdir()) for folder in _FAST_NETWORKS)
    return Machine(slots=max(1, slots), is_root=os.geteuid() == 0, fast_network=fast)


def physical_cores(cpus: Collection[int], root: Path = _CPUS) -> int:
    """Cores behind logical CPUs: hardware threads of one core count once.

    Args:
        cpus: numbers of logical CPUs.
        root: the kernel's folder of CPUs.
    """
    cores = set()
    for cpu in cpus:
        try:
            cores.add((root / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def allocated_slots(environ: Mapping[str, str]) -> int | None:
    """Slots of the batch job around this process; None if there is no job or it does not say.

    PBS writes a file with a line per slot.
    """
    if counts := slurm_tasks(environ):
        return sum(counts)
    try:
        return len(Path(environ["PBS_NODEFILE"]).read_text().split()) or None
    except (KeyError, OSError):
        return None


def slurm_tasks(environ: Mapping[str, str]) -> list[int]:
    """Tasks of each node of the Slurm job around this process; empty if it does not say.

    Slurm writes them as "4(x2),3": two nodes of four and one of three.
    """
    text = environ.get("SLURM_TASKS_PER_NODE", "") if "SLURM_JOB_ID" in environ else ""
    found = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(",")]
    if not all(found):
        return []
    return [int(match[1]) for match in found if match for _ in range(int(match[2] or 1))]
