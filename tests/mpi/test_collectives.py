"""Every collective gives the sum, the same to the bit on every rank, however it is asked."""

import errno
import functools
import os
import resource
import sys
import zlib

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpc_train.comm import COLLECTIVES, Comm, explain, prepare, sum_once
from hpc_train.errors import UsageError
from hpc_train.shm import Segment
from tests.mpi.agree import agree, agree_raises

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD
SIZE = WORLD.size
# what every rank claims to be its node: one, blocks, by turns, and one of many beside single ones
NODES = {
    "one": lambda rank: "a",
    "blocks": lambda rank: str(rank // 2),
    "cyclic": lambda rank: str(rank % 2),
    "uneven": lambda rank: str(max(0, rank - 2)),
}
DTYPES = {
    torch.float64: 1e-14,
    torch.float32: 1e-6,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}
SIZES = [0, 1, 3, 1009, 65_537]
ON_CPU = sorted(set(COLLECTIVES) - {"nccl"})


@functools.cache
def connected(nodes="one"):
    return Comm(MPI, WORLD, key=NODES[nodes](WORLD.rank))


def values(rank, size, turn):
    random = np.random.default_rng([rank, size, turn])
    return torch.from_numpy(random.standard_normal(size))


def check(operation, buffer, turns=2):
    """Launch a few times with new values; sums must be near the float64 sum, and all the same."""
    size = buffer.numel()
    for turn in range(turns):
        terms = [values(rank, size, turn).to(buffer.dtype).double() for rank in range(SIZE)]
        buffer.copy_(terms[WORLD.rank])
        operation.launch()
        operation.finish()
        scale = sum(term.abs() for term in terms) + 1e-300
        far = ((buffer.double() - sum(terms)).abs() / scale).max().item() if size else 0.0
        found = WORLD.allgather((far, zlib.crc32(buffer.view(torch.uint8).numpy())))
        assert all(far < DTYPES[buffer.dtype] for far, _ in found), found
        assert len({bits for _, bits in found}) == 1, "ranks hold different bits"


def possible(collective, dtype, nodes):
    comm = connected(nodes)
    if collective == "shared" and comm.world.num_nodes > 1:
        return False
    return collective != "native" or dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("collective", ON_CPU)
def test_sums_of_private_buffers(collective, dtype):
    if not possible(collective, dtype, "one"):
        pytest.skip("not offered")
    for size in SIZES:
        buffer = torch.empty(size, dtype=dtype)
        check(prepare(collective, connected(), buffer), buffer)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("collective", ON_CPU)
def test_sums_of_shared_buffers(collective, dtype):
    if not possible(collective, dtype, "one"):
        pytest.skip("not offered")
    for size in SIZES:
        buffer = connected().allocate(size, dtype)
        agree(buffer.shape == (size,) and not buffer.any())
        check(prepare(collective, connected(), buffer), buffer)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sum_that_lies_once_is_read_whole_by_every_rank(dtype):
    comm = connected()
    for weights in ([1] * SIZE, [*range(SIZE)], [1] + [0] * (SIZE - 1)):
        buffers = [comm.allocate(size, dtype) for size in (1, 3, 1009, 300_007)]
        looked = []
        once = sum_once(comm, buffers, lambda block, looked=looked: looked.append(block.numel()))
        once.cut(weights)
        for turn in range(2):
            terms = [
                [values(rank, b.numel(), turn).to(dtype) for rank in range(SIZE)] for b in buffers
            ]
            for buffer, term in zip(buffers, terms, strict=True):
                buffer.copy_(term[WORLD.rank])
            looked.clear()
            once.launch()
            once.finish()
            for total, term in zip(once.totals, terms, strict=True):
                scale = sum(one.double().abs() for one in term)
                far = ((total.double() - sum(one.double() for one in term)).abs() / scale).max()
                agree(float(far) < DTYPES[dtype], float(far))
            bits = [zlib.crc32(total.view(torch.uint8).numpy()) for total in once.totals]
            agree(len(set(map(tuple, WORLD.allgather(bits)))) == 1, "ranks read different bits")
            once.release()
        mine = sum(one[WORLD.rank].stop - one[WORLD.rank].start for one in once.slices)
        agree(sum(looked) == mine, (looked, mine))
        agree(sum(WORLD.allgather(mine)) == sum(b.numel() for b in buffers), "slices leave gaps")


@pytest.mark.mpi(min_size=2)
def test_no_sum_lies_once_in_several_memories():
    agree(sum_once(connected(), [torch.zeros(1000)]) is None, "private")
    far = Comm(MPI, WORLD, key=f"n{WORLD.rank}")
    agree(sum_once(far, [far.allocate(1000, torch.float32)]) is None, "nodes")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("collective", ["auto", "hierarchical", "ring"])
@pytest.mark.parametrize("nodes", ["blocks", "cyclic", "uneven"])
def test_sums_over_nodes(collective, nodes):
    comm = connected(nodes)
    for size in SIZES:
        for buffer in (torch.empty(size), comm.allocate(size, torch.float32)):
            check(prepare(collective, comm, buffer), buffer)


@pytest.mark.parametrize("collective", ON_CPU)
@pytest.mark.parametrize("place", ["private", "shared"])
def test_sums_of_many_pieces(collective, place):
    size = 2_500_003
    comm = connected()
    buffer = torch.empty(size) if place == "private" else comm.allocate(size, torch.float32)
    check(prepare(collective, comm, buffer), buffer, turns=2)


@pytest.mark.mpi(min_size=2)
def test_pieces_of_hierarchical_and_a_part_of_a_shared_buffer():
    comm = connected("blocks")
    buffer = torch.empty(5_000_011)
    check(prepare("hierarchical", comm, buffer), buffer, turns=1)
    whole = comm.allocate(300_000, torch.float32)
    whole[:1000] = -1
    part = whole[1000:251_001]
    check(prepare("hierarchical", comm, part), part, turns=2)
    agree((whole[:1000] == -1).all() and not whole[251_001:].any(), "wrote beside the buffer")


@pytest.mark.parametrize("collective", ["auto", "native", "shared", "hierarchical"])
def test_several_operations_are_launched_before_any_is_finished(collective):
    comm = connected()
    buffers = [torch.full((size,), 1.0 + WORLD.rank) for size in (5, 100_000, 300_000)]
    operations = [prepare(collective, comm, buffer) for buffer in buffers]
    for buffer in buffers:
        buffer.fill_(1.0 + WORLD.rank)
    for operation in operations:
        operation.launch()
    for operation in operations:
        operation.finish()
    total = SIZE * (SIZE + 1) / 2
    agree(all((buffer == total).all() for buffer in buffers), buffers)


def test_auto_keeps_what_was_in_the_buffer_and_measures_once_a_class(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where nothing is remembered
    comm = Comm(MPI, WORLD)
    buffer = torch.full((1000,), 1.0 + WORLD.rank)
    prepare("auto", comm, buffer)
    agree((buffer == 1.0 + WORLD.rank).all(), buffer[:3])
    known = dict(comm.choices)
    prepare("auto", comm, torch.empty(900))
    agree(comm.choices == known and len(known) == (SIZE > 1), comm.choices)
    everyone = comm.gather([choice.name for choice in known.values()])
    agree(all(names == everyone[0] for names in everyone), everyone)
    told = " ".join(explain(comm))
    agree(SIZE == 1 or "for float32 of up to 4,096 bytes (" in told, told)


@pytest.mark.mpi(min_size=2)
def test_shared_memory_does_not_reach_other_nodes():
    comm = connected("cyclic")
    agree_raises(UsageError, lambda: prepare("shared", comm, torch.empty(10)))
    agree_raises(UsageError, lambda: prepare("native", comm, torch.empty(10, dtype=torch.half)))
    agree_raises(UsageError, lambda: prepare("fast", comm, torch.empty(10)))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("lacks", ["create", "open", "reserve"])
def test_without_enough_shared_memory_everything_goes_on(lacks, caplog, monkeypatch):
    comm = Comm(MPI, WORLD)
    created, create = [], Segment.create

    def note(*arguments):
        created.append(create(*arguments))
        return created[-1]

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Segment, "create", note)
    if WORLD.rank == (0 if lacks == "create" else SIZE - 1):  # on one rank alone
        monkeypatch.setattr(Segment, lacks, fail)
    with caplog.at_level("WARNING", "hpc_train"):
        buffer = comm.allocate(300_000, torch.float32)
        operations = [
            prepare(collective, comm, buffer) for collective in ("shared", "hierarchical", "auto")
        ]
        half = torch.empty(300_000, dtype=torch.bfloat16)
        in_half = prepare("shared", comm, half)
    lines = [line for line in caplog.messages if "shared memory cannot be had" in line]
    agree(len(lines) == (WORLD.rank == 0), caplog.messages)
    agree(not any(segment.path.exists() for segment in created), "a name is left")
    agree(bool(created) == (WORLD.rank == 0 and lacks != "create"), created)
    for operation in operations:
        check(operation, buffer, turns=1)
    check(in_half, half, turns=1)


@pytest.mark.mpi(min_size=2)
def test_a_real_limit_is_met_with_a_warning_and_not_a_signal(caplog):
    comm = Comm(MPI, WORLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with caplog.at_level("WARNING", "hpc_train"):
            buffer = comm.allocate(300_000, torch.float32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    agree(len(caplog.messages) == (WORLD.rank == 0), caplog.messages)
    agree(comm.node.peers(buffer) is None)


def test_shared_memory_goes_with_the_last_tensor():
    def mapped():
        with open("/proc/self/maps") as maps:
            lines = [line.strip() for line in maps if "/dev/shm/hpc_train-" in line]
        agree(all(line.endswith("(deleted)") for line in lines), "a name is left")
        return len(lines)

    comm = Comm(MPI, WORLD)
    before = mapped()
    buffer = comm.allocate(100_000, torch.float32)
    part = buffer[10:20]
    del buffer
    agree(mapped() == before + (SIZE > 1), "part of it is still in use")
    del part
    agree(mapped() == before, "memory is kept")
    agree(comm.node.peers(torch.empty(5)) is None)


@pytest.mark.mpi(min_size=2)
def test_the_next_job_remembers_what_was_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Comm(MPI, WORLD)
    buffer = torch.zeros(3_000)
    prepare("auto", first, buffer)

    def measured_again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(sys.modules["hpc_train.comm.auto"], "_measure", measured_again)
    second = Comm(MPI, WORLD)
    check(prepare("auto", second, buffer), buffer)
    agree([c.name for c in second.choices.values()] == [c.name for c in first.choices.values()])
    agree("measured on" in explain(second)[0], explain(second))
