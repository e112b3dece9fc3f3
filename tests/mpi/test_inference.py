"""Trained models on data sets: the same file on any number of ranks, and no half of one."""

import h5py
import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.train.inference import applied, write
from hpc_train.world import RankError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import group, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
DATA = "builtin:digits/train[100:741]"


def scores(found):
    return lambda batch: {"output": batch.through(found.parts.model), "id": batch.ids}


def test_any_number_of_ranks_gives_the_same_to_the_bit_in_order(tmp_path):
    folder = shared_dir(tmp_path)
    train(1, folder / "run", run={"steps": 4}, optimizer={"name": "sgd", "lr": 0.02})
    metrics = {}
    for size in {1, SIZE}:
        comm = group(size)
        if comm is not None:
            with applied(folder / "run", DATA, "last", comm) as found:
                write(found, folder / f"{size}.h5", scores(found))
                metrics[size] = found.evaluate()
        MPI.COMM_WORLD.Barrier()
    with h5py.File(folder / "1.h5") as one, h5py.File(folder / f"{SIZE}.h5") as all_of_us:
        agree(np.array_equal(all_of_us["id"][:], np.arange(641)))
        agree(np.array_equal(one["output"][:], all_of_us["output"][:]))
        agree(np.abs(one["output"][:]).min() > 0)
    alone = MPI.COMM_WORLD.bcast(metrics.get(1))
    agree(abs(metrics[SIZE]["loss"] - alone["loss"]) < 1e-6, metrics)


def test_a_rank_that_fails_leaves_no_file(tmp_path):
    folder = shared_dir(tmp_path)
    train(1, folder / "run", run={"steps": 1}, optimizer={"name": "sgd", "lr": 0.02})

    def fail(batch):
        if int(batch.ids[0]) >= 600:  # the last portion
            raise RuntimeError("broken sample")
        return {"output": batch.ids}

    with applied(folder / "run", DATA, "last", group(SIZE)) as found:
        error = agree_raises(RankError, lambda: write(found, folder / "out.h5", fail))
    agree("broken sample" in str(error), error)
    MPI.COMM_WORLD.Barrier()
    agree(not list(folder.glob("*out.h5*")), list(folder.iterdir()))
