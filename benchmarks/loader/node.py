"""One of the ranks of a node that read compressed samples, with their blocks shared and apart."""

import json
import sys
import time
from functools import partial

import numpy as np
from mpi4py import MPI

from hpc_train.bench.harness import paired_ratios, summary
from hpc_train.comm import Comm
from hpc_train.data import Loader, make_order, open_dataset, partners, share_blocks
from hpc_train.plan import Course, Plan

BATCH, WINDOW = 256, 96
CASES = {
    # name -> shuffle, relative shares of the ranks, whether samples are mixed with partners
    "equal shares": ("window", (1, 1, 1, 1), False),
    "unequal shares": ("window", (4, 3, 2, 1), False),
    "full shuffle": ("full", (1, 1, 1, 1), False),
    "mixup": ("window", (1, 1, 1, 1), True),
}


def epoch(comm, dataset, case, cache_bytes, share):
    """Seconds of an epoch, the last rank's, and bytes read by both for a byte used."""
    shuffle, shares, mixes = CASES[case]
    plan = Plan(shares[: comm.world.size])
    batches = list(Course(dataset.num_samples, BATCH).batches(0, -(-dataset.num_samples // BATCH)))
    works = [plan.work(batch, comm.world.rank) for batch in batches]
    order = make_order(shuffle, dataset.blocks(), 0, WINDOW)
    shared = share_blocks(comm, dataset, ["x"], cache_bytes, share)
    with Loader(
        dataset,
        order,
        ["x"],
        cache_bytes=cache_bytes,
        num_readers=1,
        partners=partial(partners, 0) if mixes else None,
        node_cache=shared,
    ) as loader:
        comm.barrier()
        started = time.perf_counter()
        loader.follow(iter(works))
        for work in works:
            loader.get(work)
            comm.meet()  # ranks train in step
        seconds = time.perf_counter() - started
        read = comm.sum(np.array([loader.bytes_read], np.float64))[0]
    return max(comm.gather(seconds)), read / (dataset.num_samples * dataset.sample_bytes)


def main():
    path, cache_bytes, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    comm = Comm(MPI, MPI.COMM_WORLD)
    dataset = open_dataset(path, ["x"], 1024)
    found = {}
    for case in CASES:
        seconds, read = {True: [], False: []}, {}
        for _ in range(rounds):
            for share in (True, False):
                took, read[share] = epoch(comm, dataset, case, cache_bytes, share)
                seconds[share].append(took)
        found[case] = {
            "times_as_fast": summary(paired_ratios(seconds[False], seconds[True])).to_json(),
            "seconds_shared": summary(seconds[True]).to_json(),
            "seconds_apart": summary(seconds[False]).to_json(),
            "read_per_used_shared": read[True],
            "read_per_used_apart": read[False],
        }
    if comm.world.is_coordinator:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
