"""Shared memory: seen by all, leaks nothing, and says so when there is not enough."""

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hpc_train import shm
from hpc_train.shm import HUGE_BYTES, Segment


def test_who_opens_a_segment_sees_what_others_write():
    with Segment.create(10_000) as mine:
        with Segment.open(mine.path) as theirs:
            mine.unlink()
            mine.reserve(0, 10_000)
            written, read = mine.map(), theirs.map()
        written[9_999] = 7
        assert read.shape == (10_000,)
        assert read[9_999] == 7
        assert read[0] == 0


def test_maps_outlive_name_and_file():
    segment = Segment.create(4096)
    segment.unlink()
    segment.reserve(0, 4096)
    values = segment.map()
    segment.close()
    segment.close()
    values[:] = 3
    assert values.sum() == 3 * 4096
    assert not segment.path.exists()


def test_names_differ_and_only_the_owner_may_look():
    with Segment.create(1) as one, Segment.create(1) as other:
        assert one.path != other.path
        assert one.path.stat().st_mode & 0o777 == 0o600
        one.unlink()
        other.unlink()
        one.unlink()


def test_more_than_there_is_is_an_error_and_not_a_signal():
    there = os.statvfs(shm.FOLDER)
    size = there.f_frsize * there.f_blocks + 2**30
    with Segment.create(size) as segment:
        segment.unlink()
        with pytest.raises(OSError, match="No space") as caught:
            segment.reserve(0, size)
    assert caught.value.errno == errno.ENOSPC
    assert not segment.path.exists()


def test_what_cannot_be_created_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        Segment.create(1, tmp_path / "absent")
    with pytest.raises(OSError, match=r"too large|Invalid"):
        Segment.create(2**63 - 1, tmp_path)  # larger than any file may be
    assert list(tmp_path.iterdir()) == []


def test_a_segment_that_is_gone_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError):
        Segment.open(tmp_path / "hpc_train-0")


def test_a_process_killed_after_unlink_leaves_nothing():
    script = (
        "import os, signal\n"
        "from hpc_train.shm import Segment\n"
        "s = Segment.create(1 << 20); s.unlink(); s.reserve(0, s.size); s.map()[:] = 1\n"
        "print(s.path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert not os.path.exists(ended.stdout.strip())


SIZE, CUT = 5 * HUGE_BYTES + 4096, 2 * HUGE_BYTES + 8192


def test_large_parts_of_several_owners_are_zeros_and_seen_by_all():
    with Segment.create(SIZE) as mine, Segment.open(mine.path) as theirs:
        mine.unlink()
        mine.reserve(0, CUT)
        theirs.reserve(CUT, SIZE)
        assert os.stat(mine._descriptor).st_blocks * 512 == SIZE
        written, read = mine.map(), theirs.map()
    assert written.ctypes.data % HUGE_BYTES == read.ctypes.data % HUGE_BYTES == 0
    assert written.shape == read.shape == (SIZE,)
    assert not read.any()
    values = np.arange(SIZE) % 251
    written[:] = values
    assert np.array_equal(read, values)


def test_what_nobody_uses_of_a_part_takes_no_memory():
    size, gap = 2 * HUGE_BYTES, 3 * 4096
    segment, problem = shm.meet(size, 0, 1, lambda value: value, lambda value: [value], gap)
    assert segment is not None, problem
    with segment:
        assert os.stat(segment._descriptor).st_blocks * 512 == size - gap


def test_without_huge_pages_all_the_same_is_there(monkeypatch):
    asked = []
    refuses = SimpleNamespace(madvise=lambda *told: asked.append(told) or -1, mmap=shm._LIBC.mmap)
    monkeypatch.setattr(shm, "_LIBC", refuses)
    with Segment.create(SIZE) as segment:
        segment.unlink()
        segment.reserve(0, SIZE)
        assert os.stat(segment._descriptor).st_blocks * 512 == SIZE
        values = segment.map()
    assert len(asked) == 1
    values[:] = 3
    assert values.sum() == 3 * SIZE


def test_large_segments_come_in_huge_pages():
    if not gives_huge_pages():
        pytest.skip("this kernel makes no huge pages of shared memory")
    with Segment.create(SIZE) as segment:
        segment.unlink()
        segment.reserve(0, SIZE)
        values = segment.map()
    values[:] = 1
    assert in_huge_pages(values.ctypes.data) > 0


def gives_huge_pages():
    """Whether a program that asks for them gets them, without any of our code."""
    memory = mmap.mmap(-1, 2 * HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = np.frombuffer(memory, np.uint8)
    whole[:] = 1
    start = whole.ctypes.data + -whole.ctypes.data % HUGE_BYTES
    asked = ctypes.c_void_p(start), ctypes.c_size_t(HUGE_BYTES), 25
    return ctypes.CDLL(None).madvise(*asked) == 0


def in_huge_pages(address):
    """How many KiB of the map that begins at an address are mapped in huge pages."""
    maps = Path("/proc/self/smaps").read_text()
    own = maps[maps.index(f"{address:x}-") :]
    return int(own.split("ShmemPmdMapped:", 1)[1].split()[0])


@pytest.mark.parametrize(
    ("size", "bytes_apart"),
    [(1, 4096), (HUGE_BYTES - 1, HUGE_BYTES), (HUGE_BYTES, HUGE_BYTES), (5 * 2**20, 6 * 2**20)],
)
def test_parts_that_fill_huge_pages_begin_with_one(size, bytes_apart):
    assert shm.part_bytes(size) == bytes_apart


@pytest.mark.parametrize(("size", "pages"), [(0, 0), (1, 1), (4096, 1), (4097, 2)])
def test_whole_pages(size, pages):
    assert shm.whole_pages(size * shm.PAGE_BYTES // 4096) == pages * shm.PAGE_BYTES
