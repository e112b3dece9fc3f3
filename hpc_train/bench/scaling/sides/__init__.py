"""Who trains the workload: one file each, and the table of them."""

from __future__ import annotations

from collections.abc import Callable

from hpc_train.bench.scaling.measured import Measured
from hpc_train.bench.scaling.sides import alone, ddp, ours
from hpc_train.bench.scaling.workload import Job
from hpc_train.comm import Comm

# name -> what trains, called on every rank of the job
SIDES: dict[str, Callable[[Job, Comm], Measured]] = {
    "hpc_train": ours.measure,
    "ddp": ddp.measure,
    "alone": alone.measure,
}
