"""Ranks and nodes: one world or many, who is where, and who is root."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict

from hpc_train.doctor.check import FAIL, OK, WARN, Check, Facts, Report, Request
from hpc_train.launch import separate_worlds, under_launcher

_PERMISSIONS = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")


def facts(request: Request) -> Facts:
    """Where this rank is, and what its launcher claims."""
    launched = under_launcher(os.environ)
    return {
        "host": socket.gethostname(),
        "launched": asdict(launched) if launched else None,
        "environ": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("OMPI_COMM_WORLD_", "PMI_", "PMIX_RANK", "SLURM_", "MPI_LOCAL"))
        },
        "is_root": os.geteuid() == 0,
        "root_allowed": all(os.environ.get(name) == "1" for name in _PERMISSIONS),
    }


def checks(report: Report) -> list[Check]:
    """One world, its nodes, and the root user."""
    mine = report.of("ranks")[0]
    return [_worlds(report, mine), _nodes(report), *_root(report, mine)]


def _worlds(report: Report, mine: Facts) -> Check:
    """All ranks in one world, if a launcher started several."""
    library = report.of("mpi")[0]["library"]
    vendor = library["vendor"] if library else None
    problem = separate_worlds(mine["environ"], report.world.size, vendor)
    if problem:
        return Check("one world", FAIL, problem.message, problem.hint)
    launched = mine["launched"]
    if launched is None:
        return Check("one world", OK, "a single process, without a launcher")
    claimed = launched["size"]
    if claimed is not None and claimed != report.world.size:
        return Check(
            "one world",
            WARN,
            f"the launcher speaks of {claimed} ranks, the MPI of {report.world.size}",
            "start all ranks with one command of one launcher",
        )
    return Check("one world", OK, f"all {report.world.size} ranks are in it")


def _nodes(report: Report) -> Check:
    """How many ranks on which node; uneven numbers are fine."""
    nodes = report.nodes()
    places = [f"{len(ranks)} on {report.host(ranks[0])}" for ranks in nodes]
    shown = ", ".join(places[:6]) + (", ..." if len(places) > 6 else "")
    size, count = report.world.size, len(nodes)
    ranks = f"{size} rank{'s' if size > 1 else ''}"
    return Check("ranks", OK, f"{ranks} on {count} node{'s' if count > 1 else ''} ({shown})")


def _root(report: Report, mine: Facts) -> list[Check]:
    """Open MPI's own mpirun refuses root."""
    library = report.of("mpi")[0]["library"]
    refused = library and library["vendor"] == "Open MPI" and not mine["launched"]
    if not (mine["is_root"] and refused and not mine["root_allowed"]):
        return []
    return [
        Check(
            "user",
            WARN,
            "root, for whom mpirun refuses to start ranks (hpc-train run -n starts them)",
            f"for mpirun itself: export {' '.join(f'{name}=1' for name in _PERMISSIONS)}",
        )
    ]
