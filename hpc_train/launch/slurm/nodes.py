"""The nodes of the allocation around this process, and which of them still answer.

    allocation   node1: 4 tasks   node2: 4 tasks   node3: 2 tasks
    answers      yes              no               yes
    place        node1: 4         -                node3: 2           at most 6 ranks

Slurm itself takes a node for lost only after minutes (SlurmdTimeout); a job that shall begin again
at once has to ask. A node answers if a step of one task runs on it.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hpc_train.launch.machine import slurm_tasks

ANSWER_SECONDS = 30.0  # a daemon that is there takes a hundredth of that
_AT_ONCE = 32  # questions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where ranks can be started.

    Attributes:
        ranks: how many, >= 1.
        hosts: most ranks of each node, by name; None if all nodes answer, or nobody knows.
        silent: the nodes that do not answer.
    """

    ranks: int
    hosts: Mapping[str, int] | None = None
    silent: tuple[str, ...] = ()


def place(ranks: int, tasks: Mapping[str, int], answering: Collection[str]) -> Place:
    """Where so many ranks, or fewer, can be started; pure.

    Args:
        ranks: how many are wanted, >= 1.
        tasks: of each node of the allocation, by name; empty if there is none.
        answering: the nodes that answer.
    """
    silent = tuple(node for node in tasks if node not in answering)
    if not silent or len(silent) == len(tasks):  # that of this process answers: asking has failed
        return Place(ranks)
    hosts = {node: count for node, count in tasks.items() if node in answering}
    return Place(min(ranks, sum(hosts.values())), hosts, silent)


def find_place(ranks: int, environ: Mapping[str, str]) -> Place:
    """Where so many ranks, or fewer, can be started now; asks every node of the allocation.

    Args:
        ranks: how many are wanted, >= 1.
        environ: as Slurm set it for the batch script; without it the answer is: as before.
    """
    tasks = allocated(environ)
    if len(tasks) < 2 or shutil.which("srun", path=environ.get("PATH")) is None:
        return Place(ranks)
    with ThreadPoolExecutor(_AT_ONCE, "node") as pool:
        answers = pool.map(lambda node: _answers(node, environ), tasks)
        return place(ranks, tasks, [node for node, yes in zip(tasks, answers, strict=True) if yes])


def allocated(environ: Mapping[str, str]) -> dict[str, int]:
    """Tasks of each node of the Slurm job around this process, by name; empty if none is told."""
    counts = slurm_tasks(environ)
    if not counts:
        return {}
    names = _run(["scontrol", "show", "hostnames", environ.get("SLURM_JOB_NODELIST", "")], environ)
    nodes = (names or "").split()
    return dict(zip(nodes, counts, strict=True)) if len(nodes) == len(counts) else {}


def _answers(node: str, environ: Mapping[str, str]) -> bool:
    """Whether a step of one task runs on a node."""
    one = ["--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--cpus-per-task=1"]
    aside = ["--overlap", "--mpi=none", f"--nodelist={node}", "--input=none"]
    return _run(["srun", *one, *aside, "true"], environ) is not None


def _run(argv: list[str], environ: Mapping[str, str]) -> str | None:
    """What a command prints; None if it fails, or takes too long."""
    try:
        ended = subprocess.run(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("%s: %s", " ".join(argv), error)
        return None
    return ended.stdout
