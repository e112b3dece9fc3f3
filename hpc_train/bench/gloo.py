"""torch's gloo between all ranks, as what others would use."""

from __future__ import annotations

import torch.distributed as dist

from hpc_train.comm import Comm, open_store


def start_gloo(comm: Comm) -> None:
    """Make gloo torch's default process group among all ranks; collective."""
    world = comm.world
    dist.init_process_group("gloo", store=open_store(comm), rank=world.rank, world_size=world.size)
