"""Shared memory: seen by all, leaks nothing, and says so when there is not enough."""

import errno
import os
import subprocess
import sys

import pytest

from hpc_train import shm
from hpc_train.shm import Segment


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


@pytest.mark.parametrize(("size", "pages"), [(0, 0), (1, 1), (4096, 1), (4097, 2)])
def test_whole_pages(size, pages):
    assert shm.whole_pages(size * shm.PAGE_BYTES // 4096) == pages * shm.PAGE_BYTES
