"""JSON between the ranks of one communicator: numbers, texts, lists, never a pickle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc_train.world import Json

if TYPE_CHECKING:
    from mpi4py import MPI


def gather(communicator: MPI.Comm, value: Json) -> list[Json]:
    """Every rank's value, in the order of ranks, on every rank."""
    mine = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.empty(communicator.Get_size(), np.int64)
    communicator.Allgather(np.array([mine.size]), sizes)
    everyone = np.empty(int(sizes.sum()), np.uint8)
    communicator.Allgatherv(mine, (everyone, sizes.tolist()))
    ends = np.cumsum(sizes)
    return [
        json.loads(everyone[end - size : end].tobytes())
        for size, end in zip(sizes, ends, strict=True)
    ]


def broadcast(communicator: MPI.Comm, value: Json, root: int = 0) -> Json:
    """The root's value, on every rank."""
    text = json.dumps(value).encode() if communicator.Get_rank() == root else b""
    size = np.array([len(text)], np.int64)
    communicator.Bcast(size, root)
    buffer = np.frombuffer(text, np.uint8) if text else np.empty(int(size[0]), np.uint8)
    communicator.Bcast(buffer, root)
    return json.loads(buffer.tobytes())


def post(communicator: MPI.Comm, rank: int, tag: int, value: Json) -> tuple[MPI.Request, object]:
    """Send a value to one rank; what is given back must be kept until it has been received."""
    buffer = np.frombuffer(json.dumps(value).encode(), np.uint8)
    return communicator.Isend(buffer, rank, tag), buffer


def take(mpi: Any, communicator: MPI.Comm, rank: int, tag: int) -> Json:
    """A value that one rank has sent."""
    status = mpi.Status()
    communicator.Probe(rank, tag, status)
    buffer = np.empty(status.Get_count(mpi.BYTE), np.uint8)
    communicator.Recv(buffer, rank, tag)
    return json.loads(buffer.tobytes())
