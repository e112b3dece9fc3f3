"""The limit: every rank computes its share as if it were alone, with all others at work beside it.

No word is exchanged, so this is what cores, caches and memory allow.
"""

from __future__ import annotations

from hpc_train.bench.scaling.measured import Measured
from hpc_train.bench.scaling.sides import plain
from hpc_train.bench.scaling.workload import Job
from hpc_train.comm import Comm


def measure(job: Job, comm: Comm) -> Measured:
    """Train on the own shares, without the gradients of others."""
    prepared = plain.prepare(job, comm)
    comm.barrier()
    scale = comm.world.size / prepared.batch_size
    seconds, _ = plain.train(job, prepared, prepared.model, scale)
    return Measured(seconds, [])
