"""What is measured, on the ranks: `sides.py blocking|slowdown|load FOLDER ROUNDS`, JSON out."""

import json
import logging
import shutil
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from hpc_train.bench.harness import alternate
from hpc_train.checkpoint import Saver, Store, newest
from hpc_train.comm import connect

STEP_SECONDS = 0.05
STEPS = 20  # of a turn
EVERY = 10  # steps from save to save


def state(mib):
    """Tensors of 4 MiB and a few small ones, as of a network and its optimizer."""
    torch.manual_seed(0)
    tensors = {f"weight/{i}": torch.randn(2**20) for i in range(mib // 4)}
    return tensors | {f"bias/{i}": torch.randn(100) for i in range(mib // 4)}


def blocking(comm, folder, rounds):
    """Seconds that each kind of save keeps one rank from its work, 256 MiB.

    That is before the forward and backward of the next step, and, for ours, between them and the
    update, when what is left of the copy must be waited for.
    """
    tensors = state(256)
    saver = Saver(Store(folder / "ours", keep_last=1), comm)
    saver.prepare(tensors)
    memory = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    stager = DefaultStager(StagingOptions(False, False, False, False))

    matrix = torch.randn(300, 300)
    repeats = calibrate(comm, matrix)

    def ours(steady):
        saver.begin(1, tensors, {}, steady=tensors if steady else ())
        return saver.finish

    def torch_save():
        torch.save(tensors, folder / "plain.pt")

    def async_save(stager=None):
        path = folder / "dcp"
        return dcp.async_save(tensors, checkpoint_id=path, no_dist=True, async_stager=stager).result

    def copy():
        for name, tensor in tensors.items():
            memory[name].copy_(tensor)

    sides = {
        "ours": lambda: ours(True),
        "ours, copied at once": lambda: ours(False),
        "torch.save": torch_save,
        "async_save": async_save,
        "async_save, memory kept": lambda: async_save(stager),
        "copy into warm memory": copy,
    }
    seconds = {name: [] for name in sides}
    written = {name: [] for name in sides}
    for number, name in alternate(list(sides), rounds + 1):
        started = time.perf_counter()
        wait = sides[name]()
        blocked = time.perf_counter() - started
        for _ in range(2 * repeats):  # 100 ms of forward and backward
            torch.mm(matrix, matrix)
        waited = time.perf_counter()
        saver.wait_for_copy()
        blocked += time.perf_counter() - waited
        if wait is not None:
            wait()
        saver.finish()
        if number:  # the first turns allocate
            seconds[name].append(blocked)
            written[name].append(time.perf_counter() - started)
        shutil.rmtree(folder / "dcp", ignore_errors=True)
    return {"blocked": seconds, "until written": written}


def slowdown(comm, folder, rounds):
    """Seconds of a turn of steps, with saves and without, 10 MiB of state, all ranks busy."""
    tensors = state(10)
    saver = Saver(Store(folder / "ours", keep_last=1), comm)
    saver.prepare(tensors)
    matrix = torch.randn(300, 300)
    repeats = calibrate(comm, matrix)
    seconds = {"saving": [], "not saving": []}
    for number, name in alternate(list(seconds), rounds + 1):
        comm.meet()
        started = time.perf_counter()
        for step in range(STEPS):
            for _ in range(repeats):
                torch.mm(matrix, matrix)
            busy = comm.sum(torch.tensor([float(saver.busy)]).numpy())[0]
            if saver.pending and not busy:
                saver.advance()
            if name == "saving" and step % EVERY == 0:
                saver.begin(step, tensors, {})
        saver.finish()
        comm.meet()
        if number:
            seconds[name].append(time.perf_counter() - started)
    return seconds


def calibrate(comm, matrix):
    """How many products make a step, the same on every rank."""
    times = []
    for _ in range(100):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - started)
    return comm.broadcast(max(1, round(STEP_SECONDS / sorted(times)[50])))


def load(comm, folder, rounds):
    """Seconds until the slowest rank has 256 MiB in its own memory, verification included."""
    tensors = state(256)
    saver = Saver(Store(folder / "ours"), comm)
    saver.begin(1, tensors, {})
    saver.finish()
    if comm.world.is_coordinator:
        torch.save(tensors, folder / "plain.pt")
    memory = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    sides = {
        "ours": lambda: newest(Store(folder / "ours"), comm).tensors,
        "torch.load": lambda: torch.load(folder / "plain.pt", weights_only=True, mmap=False),
        "torch.load, mapped, not verified": lambda: torch.load(
            folder / "plain.pt", weights_only=True, mmap=True
        ),
    }
    seconds = {name: [] for name in sides}
    for number, name in alternate(list(sides), rounds + 1):
        comm.meet()
        started = time.perf_counter()
        found = sides[name]()
        for key, tensor in found.items():
            memory[key].copy_(tensor)
        elapsed = max(comm.gather(time.perf_counter() - started))
        assert all(torch.equal(memory[key], tensor) for key, tensor in tensors.items())
        del found
        if number:
            seconds[name].append(elapsed)
    return seconds


def main(what, folder, rounds):
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    comm = connect()
    found = {"blocking": blocking, "slowdown": slowdown, "load": load}[what](comm, folder, rounds)
    if comm.world.is_coordinator:
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
