"""Ranks of torch's own communication find each other, by an address agreed on over MPI."""

from __future__ import annotations

import os
import socket

import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from hpc_train.comm import Comm
from hpc_train.world import on_coordinator


def start_gloo(comm: Comm) -> None:
    """Make gloo torch's default process group among all ranks; collective."""
    world = comm.world
    store = _meet(comm)
    dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size)


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
