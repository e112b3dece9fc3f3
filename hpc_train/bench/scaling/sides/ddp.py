"""The competitor: DistributedDataParallel of torch over gloo, at its best.

Gradients are views of its buckets, micro-batches before the last are not exchanged, and the data
lie in memory. Ranks find each other through an address that they agree on over MPI.
"""

from __future__ import annotations

import numpy as np
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hpc_train.bench.gloo import start_gloo
from hpc_train.bench.scaling.measured import Measured
from hpc_train.bench.scaling.sides import plain
from hpc_train.bench.scaling.workload import Job
from hpc_train.comm import Comm


def measure(job: Job, comm: Comm) -> Measured:
    """Train one model on all ranks, as our own side does."""
    prepared = plain.prepare(job, comm)
    world = comm.world
    start_gloo(comm)
    try:
        model = DistributedDataParallel(prepared.model, gradient_as_bucket_view=True)
        # it takes the mean over ranks, we want the sum over the global batch divided by its size
        scale = world.size / prepared.batch_size
        comm.barrier()
        seconds, sums = plain.train(job, prepared, model, scale, model.no_sync)
        comm.barrier()
    finally:
        dist.destroy_process_group()
    losses = comm.sum(np.array(sums)) / prepared.batch_size
    return Measured(seconds, losses.tolist())
