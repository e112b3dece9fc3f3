"""One rank of a measurement: `python -m hpc_train.bench.scaling.worker JOB.json`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hpc_train.bench.scaling import clock
from hpc_train.bench.scaling.measured import oversubscribed
from hpc_train.bench.scaling.sides import SIDES
from hpc_train.bench.scaling.workload import Job
from hpc_train.comm import Comm, connect
from hpc_train.comm.exits import leave
from hpc_train.comm.facts import library_facts
from hpc_train.launch import separate_worlds
from hpc_train.observe import write_json


def main(arguments: list[str]) -> int:
    """Measure as the job's file says; the exit code is the same on all ranks."""
    comm = connect()
    try:
        problem = separate_worlds(os.environ, comm.world.size)
        if problem is not None:
            raise problem.error()
        measure(Job.read(Path(arguments[0])), comm)
    except BaseException as error:
        return leave(comm, error)
    comm.barrier()
    return 0


def measure(job: Job, comm: Comm) -> None:
    """Take part in a job, and write its result on rank 0."""
    found = SIDES[job.side](job, comm)
    mine = {
        "seconds": found.seconds,
        "steps": clock.to_json(found.steps),
        "cores": sorted(os.sched_getaffinity(0)),
    }
    ranks = comm.gather(mine)
    if comm.world.is_coordinator:
        write_json(job.result, summarise(job, ranks, found.losses, comm.world.nodes))


def summarise(
    job: Job, ranks: list[dict[str, Any]], losses: list[float], nodes: tuple[int, ...]
) -> dict[str, Any]:
    """The result of a job, from what each rank measured."""
    steps = [clock.from_json(rank["steps"]) for rank in ranks]
    return {
        "side": job.side,
        "ranks": job.ranks,
        "batch_size": job.batch_size,
        "step_seconds": clock.typical([rank["seconds"] for rank in ranks]),
        "parts_seconds": clock.split(steps) if all(steps) else None,
        "losses": losses,
        "nodes": max(nodes) + 1,
        "oversubscribed": oversubscribed(nodes, [rank["cores"] for rank in ranks], job.threads),
        "mpi": library_facts()["library_version"],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
