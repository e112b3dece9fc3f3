"""The competitor: DistributedDataParallel of torch over gloo, at its best.

Gradients are views of its buckets, micro-batches before the last are not exchanged, and the data
lie in memory. Ranks find each other through an address that they agree on over MPI.
"""

from __future__ import annotations

import os
import socket

import numpy as np
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from hpc_train.bench.scaling.measured import Measured
from hpc_train.bench.scaling.sides import plain
from hpc_train.bench.scaling.workload import Job
from hpc_train.comm import Comm
from hpc_train.world import on_coordinator


def measure(job: Job, comm: Comm) -> Measured:
    """Train one model on all ranks, as our own side does."""
    prepared = plain.prepare(job, comm)
    store = _meet(comm)
    world = comm.world
    dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size)
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


def _meet(comm: Comm) -> Store:
    """A store on rank 0 that all ranks are connected to."""
    world = comm.world
    one_node = world.num_nodes == 1
    if one_node:
        # the loopback device is the fastest there is, and needs no name service
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    host = "127.0.0.1" if one_node else socket.gethostname()
    served: list[TCPStore] = []

    def serve() -> list[object]:
        store = TCPStore(host, 0, world.size, is_master=True, wait_for_workers=False)
        served.append(store)
        return [host, store.port]

    address, port = on_coordinator(comm, serve)
    return served[0] if served else TCPStore(address, port, world.size, is_master=False)
