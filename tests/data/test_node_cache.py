"""Blocks shared in a node: each is read once, and nobody waits for a rank that died or stopped."""

import os
import subprocess
import sys
import threading
import time
import weakref
from contextlib import closing

import h5py
import numpy as np
import pytest

from hpc_train.data import Loader, make_order, open_dataset
from hpc_train.data.node_cache import Layout, NodeCache
from hpc_train.data.sharing import plan_layout, share_blocks
from hpc_train.plan import Course, Plan
from hpc_train.shm import Segment
from tests.groups import run_ranks

LAYOUT = Layout(num_slots=6, num_ranks=3, share=2, rows=4, fields=(("x", 12), ("y", 8)))
ROWS = np.arange(48, dtype=np.uint8).reshape(4, 12)


class Ranks:
    """Three ranks of a node, all in this process: locks belong to open files."""

    def __init__(self, patience_seconds=10.0):
        first = Segment.create(LAYOUT.size)
        segments = [first, Segment.open(first.path), Segment.open(first.path)]
        first.unlink()
        first.reserve(0, LAYOUT.size)
        self.caches = [
            NodeCache(segment, LAYOUT, rank, patience_seconds)
            for rank, segment in enumerate(segments)
        ]

    def __enter__(self):
        return self.caches

    def __exit__(self, *_):
        for cache in self.caches:
            cache.close()


def fill(lease):
    lease.rows("x", 4)[:] = ROWS
    lease.publish()


def test_a_block_that_one_rank_filled_is_there_for_the_others():
    with Ranks() as (one, two, _):
        lease = one.lease((0, 7))
        assert not lease.is_ready
        fill(lease)
        found = two.lease((0, 7))
        assert found.is_ready
        assert np.array_equal(found.rows("x", 4), ROWS)
        assert found.rows("z", 4) is None


def test_who_needs_a_block_that_is_being_filled_waits_for_it():
    with Ranks() as (one, two, _):
        lease = one.lease((0, 7))
        found = []
        waiting = threading.Thread(target=lambda: found.append(two.lease((0, 7))))
        waiting.start()
        time.sleep(0.01)
        assert not found
        fill(lease)
        waiting.join(10)
        assert found[0].is_ready


def test_who_has_left_leases_nothing_and_keeps_no_memory_but_views():
    with Ranks() as (one, two, _):
        fill(one.lease((0, 7)))
        found = two.lease((0, 7)).rows("x", 4)
        open_one = two.lease((0, 8))
        memory = weakref.ref(two._slots.state.base)
        two.close()
        open_one.publish()
        assert memory() is None
        assert two.lease((0, 7)) is None
        assert np.array_equal(found, ROWS)
        assert not one.lease((0, 8)).is_ready  # what was being filled is taken over


def test_a_block_that_could_not_be_read_is_tried_again_by_the_next():
    with Ranks() as (one, two, _):
        one.lease((0, 7)).abandon()
        assert not two.lease((0, 7)).is_ready


def test_what_is_in_use_is_never_given_away():
    with Ranks() as (one, two, three):
        kept = one.lease((0, 0))
        fill(kept)
        view = kept.rows("x", 4)[1:3]  # the lease is gone, a view of it is not
        del kept
        for number in range(1, 40):
            for cache in (two, three):
                lease = cache.lease((0, number))
                if not lease.is_ready:
                    lease.rows("x", 4)[:] = number
                    lease.publish()
        assert np.array_equal(view, ROWS[1:3])


def test_a_rank_cannot_use_more_than_its_share():
    with Ranks() as (one, two, _):
        held = [one.lease((0, number)) for number in range(2)]
        assert one.lease((0, 2)) is None
        assert two.lease((0, 3)) is not None
        held.pop()
        assert one.lease((0, 2)) is not None


def test_a_rank_that_lives_and_does_not_come_on_is_not_waited_for_long():
    with Ranks(patience_seconds=0.02) as (one, two, _):
        lease = one.lease((0, 7))
        assert two.lease((0, 7)) is None
        fill(lease)
        assert two.lease((0, 7)).is_ready


def test_a_lock_that_is_held_for_long_is_done_without():
    with Ranks(patience_seconds=0.02) as (one, two, _):
        assert one._segment.try_lock(0)
        assert two.lease((0, 7)) is None
        one._segment.unlock(0)
        assert two.lease((0, 7)) is not None


CHILD = """
import os, sys
from pathlib import Path
from tests.data.test_node_cache import LAYOUT
from hpc_train.data.node_cache import NodeCache
from hpc_train.shm import Segment
cache = NodeCache(Segment.open(Path(sys.argv[1])), LAYOUT, 1)
lease = cache.lease((0, 7))
lease.rows("x", 4)[:2] = 1
if sys.argv[2] == "table":
    cache._segment.try_lock(0)
print("filling", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("where", ["block", "table"])
def test_a_rank_that_is_killed_while_it_fills_a_block_holds_nobody_up(where):
    with Segment.create(LAYOUT.size) as segment:
        segment.reserve(0, LAYOUT.size)
        command = [sys.executable, "-c", CHILD, str(segment.path), where]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd()
        ) as child:
            assert child.stdout.readline() == b"filling\n"
            segment.unlink()
            cache = NodeCache(segment, LAYOUT, 0, patience_seconds=60)
            found = []
            waiting = threading.Thread(target=lambda: found.append(cache.lease((0, 7))))
            waiting.start()
            child.kill()
            waiting.join(30)
        assert found[0] is not None  # at once, and not when patience ends
        assert not found[0].is_ready
        fill(found[0])
        assert cache.lease((0, 7)).is_ready


# --- loaders ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """Two shards of 330 samples, compressed in chunks of 32."""
    folder = tmp_path_factory.mktemp("compressed")
    ids = np.arange(660)
    for number in range(2):
        mine = ids[number * 330 : (number + 1) * 330]
        with h5py.File(folder / f"{number}.h5", "w") as file:
            values = mine[:, None] * np.arange(1, 12)
            file.create_dataset("x", data=values.astype("<i4"), chunks=(32, 11), compression=1)
            file.create_dataset("y", data=mine.astype("u2"))
    return open_dataset(str(folder), ["x", "y"], 32)


def epoch(dataset, shuffle, counts, window, cache_bytes, mode):
    """What every rank got in an epoch, as (ids, digests), and the bytes that all of them read."""
    course = Course(dataset.num_samples, sum(counts))
    batches = list(course.batches(0, -(-dataset.num_samples // sum(counts))))

    def act(group):
        order = make_order(shuffle, dataset.blocks(), 0, window)
        shared = share_blocks(group, dataset, ["x", "y"], cache_bytes, mode)
        assert (shared is None) == (mode is False)
        works = [Plan(counts).work(batch, group.world.rank) for batch in batches]
        with Loader(
            dataset, order, ["x", "y"], cache_bytes=cache_bytes, node_cache=shared
        ) as loader:
            loader.follow(iter(works))
            got = []
            for work in works:
                samples = loader.get(work)
                assert np.array_equal(samples.arrays["y"], samples.ids)
                assert np.array_equal(samples.arrays["x"][:, 2], samples.ids * 3)
                got.append((samples.ids.tolist(), samples.digest))
                group.barrier(60)  # ranks train in step
            return got, loader.bytes_read

    found = run_ranks(len(counts), act)
    return [got for got, _ in found], sum(read for _, read in found)


@pytest.mark.parametrize(
    ("shuffle", "counts", "window"),
    [
        ("window", (8, 8), 5),
        ("window", (7, 2, 4), 5),
        ("window", (5, 0, 20, 7), 3),
        ("full", (16, 16), 1),
    ],
)
def test_samples_are_the_same_and_blocks_are_read_once_in_a_node(
    compressed, shuffle, counts, window
):
    alone, read_alone = epoch(compressed, shuffle, counts, window, 2**17, False)
    together, read_together = epoch(compressed, shuffle, counts, window, 2**17, True)
    assert together == alone
    used = compressed.num_samples * 46
    assert read_together == used < read_alone


@pytest.mark.parametrize("cache_bytes", [4160, 3 * 4160])
def test_a_budget_of_few_blocks_costs_reading_and_never_correctness(compressed, cache_bytes):
    alone, _ = epoch(compressed, "window", (9, 5, 2), 4, cache_bytes, False)
    together, _ = epoch(compressed, "window", (9, 5, 2), 4, cache_bytes, True)
    assert together == alone


def test_memory_has_a_slot_for_every_block_or_what_the_budgets_give(compressed):
    few = plan_layout(compressed, ["x"], ["x", "y"], 10 * 4160, 2)
    assert (few.num_slots, few.share, few.rows) == (20, 10, 32)
    assert plan_layout(compressed, ["x"], ["x", "y"], 2**20, 2).num_slots == 22
    assert plan_layout(compressed, ["x"], ["x", "y"], 4000, 2) is None


def share(dataset, num_ranks, mode=True):
    """What the ranks of a node come by; closed again."""

    def act(group):
        cache = share_blocks(group, dataset, ["x"], 2**20, mode)
        if cache is None:
            return None
        with closing(cache):
            return cache.layout.fields

    return run_ranks(num_ranks, act)


def test_only_what_is_decoded_is_shared(compressed, tmp_path):
    assert share(compressed, 2, "auto") == [(("x", 44),)] * 2
    assert share(compressed, 1) == [None]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((40, 3)), chunks=(8, 3))
    mapped = open_dataset(str(tmp_path / "x.h5"), ["x"], 8)
    assert share(mapped, 2) == [None, None]


def test_too_little_shared_memory_is_told_in_one_line(compressed, monkeypatch, caplog):
    class Full:
        f_bavail, f_frsize = 3, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    assert share(compressed, 3, "auto") == [None] * 3
    (line,) = caplog.messages
    assert line.startswith("data.node_cache: /dev/shm is too small (needed: 0 MiB, free: 0 MiB")


def test_memory_that_runs_out_on_one_rank_leaves_all_without(compressed, monkeypatch, caplog):
    reserve = Segment.reserve

    def fail(segment, start, stop):
        if start:
            raise OSError(28, "No space left on device")
        reserve(segment, start, stop)

    monkeypatch.setattr(Segment, "reserve", fail)
    assert share(compressed, 2) == [None, None]
    (line,) = caplog.messages
    assert "no space left on device" in line


def test_the_name_is_gone_once_all_have_the_memory(compressed, monkeypatch):
    paths = []
    create = Segment.create

    def note(size):
        paths.append(create(size))
        return paths[-1]

    monkeypatch.setattr(Segment, "create", note)
    assert share(compressed, 2) == [(("x", 44),)] * 2
    (segment,) = paths
    assert not segment.path.exists()
