"""Blocks shared by the ranks of a node: the same training, each block read once in the node."""

import h5py
import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.comm import Comm
from hpc_train.data import Loader, make_order, open_dataset, share_blocks
from hpc_train.plan import Course, Plan
from tests.mpi.agree import agree
from tests.mpi.runs import DIGITS, distance, shared_dir, train

pytestmark = pytest.mark.mpi(min_size=2)

SIZE = MPI.COMM_WORLD.size


@pytest.fixture
def compressed(tmp_path):
    """The digits in chunks of 50, compressed."""
    path = shared_dir(tmp_path) / "digits.h5"
    if MPI.COMM_WORLD.rank == 0:
        found = open_dataset(DIGITS["train"], ["image", "label"], 1024)
        with h5py.File(found.path(0)) as source, h5py.File(path, "w") as file:
            for name in ("image", "label"):
                rows = source[name][:]
                chunks = (50, *rows.shape[1:])
                file.create_dataset(name, data=rows, chunks=chunks, compression=1)
    MPI.COMM_WORLD.Barrier()
    return path


def test_training_is_the_same(compressed):
    settings = {
        "precision": {"dtype": "float64"},
        "run": {"steps": 12},
        "schedule": {"policy": "static", "shares": [20] * (SIZE - 1) + [64 - 20 * (SIZE - 1)]},
        "regularization": {"mixup": 0.4},  # partners come from anywhere in the batch
    }
    data = {"train": str(compressed), "shuffle_window": 7}
    found = []
    for share in (False, True):
        folder = compressed.parent / str(share)
        weights, _ = train(SIZE, folder, **settings, data=data | {"node_cache": share})
        found.append(weights)
    agree(distance(*found) < 1e-10, distance(*found))
    more = settings | {"run": {"steps": 18}}
    whole, _ = train(SIZE, compressed.parent / "whole", **more, data=data | {"node_cache": False})
    on = data | {"node_cache": True}
    train(SIZE, compressed.parent / "parts", **settings, data=on)
    resumed, _ = train(
        SIZE, compressed.parent / "parts", resume=compressed.parent / "parts", **more, data=on
    )
    agree(distance(resumed, whole) < 1e-10, distance(resumed, whole))


@pytest.mark.parametrize("shuffle", ["window", "full"])
def test_each_block_is_read_once_in_the_node_also_after_a_new_plan(compressed, shuffle):
    dataset = open_dataset(str(compressed), ["image", "label"], 50)
    comm = Comm(MPI, MPI.COMM_WORLD)
    shared = share_blocks(comm, dataset, ["image", "label"], 2**20, "auto")
    order = make_order(shuffle, dataset.blocks(), 0, 6)
    batches = list(Course(dataset.num_samples, 36).batches(0, -(-dataset.num_samples // 36)))
    plans = [Plan((36 - (SIZE - 1) * few, *[few] * (SIZE - 1))) for few in (9, 3)]
    right = True
    with Loader(dataset, order, ["image", "label"], cache_bytes=2**20, node_cache=shared) as loader:
        for part, plan in zip((batches[:9], batches[9:]), plans, strict=True):
            works = [plan.work(batch, comm.world.rank) for batch in part]
            loader.follow(iter(works))
            for work in works:
                digest = loader.get(work).digest
                right = right and digest == loader.read(work).digest
                comm.barrier(60)
        read = comm.sum(np.array([loader.bytes_read], np.float64))[0]
    used = dataset.num_samples * dataset.sample_bytes
    agree(right, "samples differ")
    agree(read <= 1.02 * used, read / used)
