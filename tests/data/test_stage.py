"""Copies of shards on a disk of the node: right, made once, cleaned up, and never needed."""

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import closing

import h5py
import numpy as np
import pytest

from hpc_train.data import staged_copy
from hpc_train.data.read import Reader
from hpc_train.data.stage import Stage, staging_folder
from hpc_train.errors import DataError
from tests.data.files import make_dataset, rows_of

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "set").mkdir()
    return make_dataset(tmp_path / "set", [20, 13])


@pytest.fixture
def fast(tmp_path):
    return tmp_path / "fast"


def files_of(dataset):
    return {number: dataset.path(number) for number in range(2)}


def start(dataset, fast, **options):
    return Stage(fast, files_of(dataset), ["x", "y"], **options)


def copies(fast):
    return sorted(path for path in fast.rglob("*") if path.suffix == ".h5")


def read_all(reader):
    into = reader.buffers(33)
    reader.read(np.arange(33), into)
    assert np.array_equal(into["x"], rows_of(0, 33)["x"])


def test_samples_come_from_the_copies_once_they_are_there(dataset, fast):
    reader = Reader(dataset, ["x", "y"], 0, stage=(stage := start(dataset, fast)))
    read_all(reader)
    assert stage.wait(30)
    for number in range(2):
        assert stage.path(number).read_bytes() == dataset.path(number).read_bytes()
        dataset.path(number).unlink()
    read_all(reader)
    reader.close()
    assert list(fast.iterdir()) == []


@pytest.fixture
def made(monkeypatch):
    """The copies that are made, as they are."""
    made = []
    checksum = staged_copy.checksum

    def note(file, copy=None, stop=None):
        made.extend([] if copy is None else [copy])
        return checksum(file, copy, stop)

    monkeypatch.setattr(staged_copy, "checksum", note)
    return made


def test_copies_are_made_once_and_go_with_the_last_who_uses_them(dataset, fast, made):
    one, two = start(dataset, fast), start(dataset, fast)
    assert one.wait(30)
    assert two.wait(30)
    assert len(made) == 2
    assert one.path(1) == two.path(1)
    one.close()
    assert len(copies(fast)) == 2
    two.close()
    assert copies(fast) == []


def test_copies_that_are_kept_are_checked_and_used_by_the_next(dataset, fast, made, caplog):
    caplog.set_level(logging.INFO)
    stage = start(dataset, fast, keep=True)
    assert stage.wait(30)
    stage.close()
    first, _ = copies(fast)
    with first.open("r+b") as file:
        file.write(b"damaged")
    caplog.clear()
    stage = start(dataset, fast)
    assert stage.wait(30)
    assert {stage.path(n).read_bytes() for n in range(2)} == {
        dataset.path(n).read_bytes() for n in range(2)
    }
    assert [path.stem for path in made[2:]] == [first.stem]
    assert "2 of 2 shards are staged" in caplog.text
    stage.close()


def test_a_shard_that_has_changed_is_copied_again(dataset, fast, made):
    stage = start(dataset, fast, keep=True)
    assert stage.wait(30)
    stage.close()
    os.utime(dataset.path(0), ns=(5, 5))
    stage = start(dataset, fast)
    assert stage.wait(30)
    assert [path.stem for path in made[2:]] == [stage.path(0).stem]
    stage.close()


def test_what_does_not_fit_is_read_where_it_is(dataset, fast, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 0, 100))
    reader = Reader(dataset, ["x", "y"], 0, stage=(stage := start(dataset, fast)))
    until = time.monotonic() + 60
    while not caplog.messages:
        assert not stage.wait(0.01)
        assert time.monotonic() < until
    read_all(reader)
    assert stage.path(0) is None
    reader.close()
    (line,) = caplog.messages
    assert "shards do not fit and are read where they are" in line


def test_a_disk_that_fills_up_stops_staging(dataset, fast, monkeypatch, caplog):
    def fail(file, copy=None, stop=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staged_copy, "checksum", fail)
    reader = Reader(dataset, ["x", "y"], 0, stage=(stage := start(dataset, fast)))
    until = time.monotonic() + 60
    while not caplog.messages:
        assert not stage.wait(0.01)
        assert time.monotonic() < until
    read_all(reader)
    reader.close()
    assert "No space left on device" in caplog.text


def test_a_copy_that_was_damaged_since_is_given_up(dataset, fast, caplog):
    reader = Reader(dataset, ["x", "y"], 0, stage=(stage := start(dataset, fast)))
    assert stage.wait(30)
    os.truncate(stage.path(1), 100)
    read_all(reader)
    assert stage.path(1) is None
    assert "its copy cannot be read" in caplog.text
    reader.close()


def test_a_damaged_copy_is_given_up_also_while_somebody_uses_it(dataset, fast):
    reader = Reader(dataset, ["x", "y"], 0, stage=(stage := start(dataset, fast)))
    assert stage.wait(30)
    with reader._shards._open(1, stage.path(1)) as shard:
        os.truncate(stage.path(1), 100)
        read_all(reader)
        assert stage.path(1) is None
        assert reader._shards._files[1] is not shard
    reader.close()


def test_another_users_folder_is_not_taken(dataset, fast, monkeypatch):
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(DataError, match="another user's"):
        start(dataset, fast)


def test_shards_that_take_data_from_elsewhere_are_not_staged(dataset, fast):
    layout = h5py.VirtualLayout((13, 3), np.float32)
    layout[:] = h5py.VirtualSource("shard-00000.h5", "x", (20, 3), np.float32)[:13]
    with h5py.File(dataset.path(1), "r+") as file:
        del file["x"]
        file.create_virtual_dataset("x", layout)
    stage = start(dataset, fast)
    assert stage.wait(30)
    assert stage.path(0) is not None
    assert stage.path(1) is None
    stage.close()


def test_runs_with_other_shards_do_not_wait_for_each_other(dataset, fast, monkeypatch, caplog):
    whole = staged_copy.checksum
    lacking = threading.Event()

    def fail(file, copy=None, stop=None):
        if file.name == "shard-00000.h5" and copy:
            lacking.set()
            raise OSError(28, "No space left on device")
        return whole(file, copy, stop)

    monkeypatch.setattr(staged_copy, "checksum", fail)
    with closing(Stage(fast, {0: dataset.path(0)}, ["x", "y"])) as one:
        assert lacking.wait(60)
        with closing(Stage(fast, {5: dataset.path(1)}, ["x", "y"])) as other:
            assert other.wait(60)
            assert other.path(5).read_bytes() == dataset.path(1).read_bytes()
            assert not one.wait(0.01)
        assert not list(fast.rglob("*.part"))


def test_runs_that_have_a_shard_in_common_copy_it_once(dataset, fast, made):
    with (
        closing(start(dataset, fast)) as one,
        closing(Stage(fast, {0: dataset.path(1)}, ["x", "y"])) as other,
    ):
        assert one.wait(60)
        assert other.wait(60)
        assert one.path(1) == other.path(0)
    assert len(made) == 2


def test_copies_that_nobody_uses_make_room(dataset, fast, monkeypatch):
    with closing(Stage(fast, {0: dataset.path(0)}, ["x", "y"], keep=True)) as stage:
        assert stage.wait(60)
        (first,) = copies(fast)
    old, size = first.with_suffix(".old"), dataset.path(1).stat().st_size

    def usage(_):
        return Usage(0, 0, size if old.exists() else 2 * size)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with closing(Stage(fast, {0: dataset.path(1)}, ["x", "y"])) as stage:
        assert stage.wait(60)
        assert stage.path(0).read_bytes() == dataset.path(1).read_bytes()
        assert not old.exists()


CHILD = """
import fcntl, sys
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
print("copying", flush=True)
sys.stdin.read()
"""


def test_who_dies_while_copying_is_replaced(dataset, fast):
    with closing(start(dataset, fast)) as first:  # makes the folder
        assert first.wait(30)
        (lock,) = (p for p in first.folder.glob("*.lock") if p.name != "users.lock")
        for path in copies(fast):
            path.unlink()
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout.readline() == b"copying\n"
            with closing(start(dataset, fast)) as stage:
                assert not stage.wait(0.05)
                child.kill()
                assert stage.wait(30)
                assert stage.path(0) is not None


def test_a_variable_that_is_not_set_is_an_error(monkeypatch):
    monkeypatch.setenv("FAST_DISK", "/fast")
    assert str(staging_folder("$FAST_DISK/x")) == "/fast/x"
    monkeypatch.delenv("FAST_DISK")
    with pytest.raises(DataError, match="variables that are set on every node"):
        staging_folder("$FAST_DISK/x")


def test_a_folder_that_cannot_be_made_is_an_error(dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot stage there"):
        start(dataset, tmp_path / "file")
