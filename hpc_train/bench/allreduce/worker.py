"""One rank of a measurement: `python -m hpc_train.bench.allreduce.worker SETTINGS.json OUT.json`.

For every type and size, all sides take turns, round after round. Before its turn, the buffer is
written anew; in the first round and in the last one, the sum is compared with the true one.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from hpc_train.bench.allreduce.settings import DTYPES, Settings, repeats
from hpc_train.bench.allreduce.sides import Side, make_sides
from hpc_train.bench.gloo import start_gloo
from hpc_train.bench.harness import alternate
from hpc_train.comm import Comm, connect
from hpc_train.comm.arithmetic import raw
from hpc_train.comm.exits import leave
from hpc_train.comm.facts import library_facts
from hpc_train.errors import HpcTrainError
from hpc_train.launch import separate_worlds
from hpc_train.observe import write_json
from hpc_train.world import agree

_PATTERN = 65_537  # a prime, so that no slice, piece or segment begins where the pattern does
_TOLERANCES = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 5e-2}


def main(arguments: list[str]) -> int:
    """Measure as the file says; the exit code is the same on all ranks."""
    comm = connect()
    try:
        problem = separate_worlds(os.environ, comm.world.size)
        if problem is not None:
            raise problem.error()
        torch.set_num_threads(1)
        settings = Settings.from_json(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
        measure(settings, comm, Path(arguments[1]))
    except BaseException as error:
        return leave(comm, error)
    comm.barrier()
    return 0


def measure(settings: Settings, comm: Comm, result: Path) -> None:
    """Measure everything, and write the result on rank 0."""
    start_gloo(comm)
    try:
        points = []
        for dtype in settings.dtypes:
            for size in settings.sizes():
                points.append(_point(comm, dtype, size, settings.rounds))
                _tell(comm, f"{dtype}  {size:,} bytes")
    finally:
        dist.destroy_process_group()
    if comm.world.is_coordinator:
        document = {
            "points": points,
            "nodes": comm.world.num_nodes,
            "mpi": library_facts()["library_version"],
            "auto": [
                {"bytes": size, "dtype": dtype, "shared": shared, "name": c.name, "why": c.reason}
                for (size, dtype, shared), c in comm.choices.items()
            ],
        }
        write_json(result, document)


def _point(comm: Comm, dtype: str, size: int, rounds: int) -> dict[str, Any]:
    """Seconds of every side in every round, for one type and size."""
    kind: torch.dtype = getattr(torch, dtype)
    count = size // DTYPES[dtype]
    sides = make_sides(comm, count, kind)
    mine, true = _values(comm, count, kind)
    times = repeats(size)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number, name in alternate(list(sides), rounds):
        side = sides[name]
        side.before()
        if number in (0, rounds - 1):
            _check(comm, dtype, name, side, mine, true)
        seconds[name].append(_turn(comm, side, mine, times))
        side.after()
    everyone = comm.gather([seconds[name] for name in sides])
    slowest = np.array(everyone).max(axis=0) / times  # (sides, rounds)
    return {
        "dtype": dtype,
        "bytes": count * DTYPES[dtype],
        "seconds": {name: slowest[place].tolist() for place, name in enumerate(sides)},
    }


def _turn(comm: Comm, side: Side, mine: torch.Tensor, times: int) -> float:
    """Seconds of a turn on this rank, begun by all ranks together, with new values."""
    if side.buffer is not None:
        side.buffer.copy_(mine)
    comm.meet()
    started = time.perf_counter()
    for _ in range(times):
        side.run()
    return time.perf_counter() - started


def _values(comm: Comm, count: int, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Random values of this rank, shape (count,), and the sum of all ranks', in float64."""
    length = min(count, _PATTERN)
    patterns = [
        torch.from_numpy(np.random.default_rng([rank, count]).standard_normal(length)).to(kind)
        for rank in range(comm.world.size)
    ]
    total = torch.stack([pattern.double() for pattern in patterns]).sum(0)
    own = patterns[comm.world.rank].repeat(-(-count // length))[:count]
    return own, total


def _check(
    comm: Comm, dtype: str, name: str, side: Side, mine: torch.Tensor, true: torch.Tensor
) -> None:
    """Sum once, and compare with the true sum, pattern by pattern.

    A sum that lies in one place must be the same to the bit, wherever it is read.

    Raises:
        RankError: on every rank, if it is wrong on any.
    """
    error, bits = None, 0
    if side.buffer is not None:
        side.buffer.copy_(mine)
        side.run()
        found = side.buffer if side.total is None else side.total
        far = max(
            float((part.double() - true[: part.numel()]).abs().max())
            for part in torch.split(found, true.numel())
        )
        if not far <= _TOLERANCES[dtype] * comm.world.size:
            error = HpcTrainError(f"{name} gives wrong sums (difference: {far:g}, {dtype})")
        if side.total is not None:
            bits = zlib.crc32(raw(found).data)
    if len(set(comm.gather(bits))) > 1:
        error = error or HpcTrainError(f"{name} gives ranks different sums ({dtype})")
    agree(comm, error)


def _tell(comm: Comm, line: str) -> None:
    if comm.world.is_coordinator:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
