"""torch's own communication between ranks that met over MPI: gloo here, NCCL where GPUs are."""

import pytest
import torch
from mpi4py import MPI

from hpc_train.comm import Background, Comm, Fabric, FabricError, FabricSum, prepare
from hpc_train.errors import UsageError
from tests.mpi.agree import agree, agree_raises

pytestmark = pytest.mark.mpi

SIZE, RANK = MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank


def check(backend, device, dtype=torch.float64):
    """Sums of several buffers, in this thread and in another one."""
    comm = Comm(MPI, MPI.COMM_WORLD)
    fabric = comm.fabrics[backend] = Fabric(comm, backend)
    buffers = [torch.empty(size, dtype=dtype, device=device) for size in (1, 1009, 65_537)]
    sums = [FabricSum(fabric, buffer) for buffer in buffers]
    thread = Background()
    for turn in range(3):
        for buffer in buffers:
            buffer.copy_(torch.arange(len(buffer)) % 7 + RANK + turn)
        for one in sums:
            if turn:
                thread.put(one)
            else:
                one.launch()
        if not turn:
            for one in sums:
                one.finish()
        thread.wait()
        for buffer in buffers:
            expected = SIZE * (torch.arange(len(buffer)) % 7 + turn) + SIZE * (SIZE - 1) // 2
            agree(torch.equal(buffer.cpu(), expected.to(dtype)), (turn, len(buffer)))
    assert thread.close()
    comm.close()
    agree_raises(FabricError, lambda: fabric.wait(fabric.sum(buffers[0])))


def test_sums_by_gloo():
    check("gloo", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_sums_by_nccl():
    if torch.cuda.device_count() < SIZE:
        pytest.skip("a GPU for each rank is needed")
    check("nccl", f"cuda:{RANK}", torch.float32)


@pytest.mark.mpi(min_size=2)
def test_nccl_is_refused_without_gpus_by_all_ranks():
    comm = Comm(MPI, MPI.COMM_WORLD)
    error = agree_raises(UsageError, lambda: prepare("nccl", comm, torch.zeros(5)))
    agree("a GPU of its own for each rank" in str(error), error)
    agree(not comm.fabrics)
