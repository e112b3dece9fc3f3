"""The saver: a copy is taken at once, written behind, and there on all ranks' word only."""

import threading
import time

import pytest
import torch

from hpc_train.checkpoint import Saver, Store, newest, snapshot
from hpc_train.errors import CheckpointError
from hpc_train.world import RankError
from tests.checkpoint.group import alone, ranks


def state(value):
    return {f"t{i}": torch.full((10 * i,), float(value)) for i in range(6)}


def value_of(saved):
    assert saved.tensors.keys() == state(0).keys()
    (value,) = {float(x) for tensor in saved.tensors.values() for x in tensor}
    return value


def settle(saver, seconds=10):
    """Advance as the loop does, once no rank is busy."""
    until = time.monotonic() + seconds
    while saver.pending:
        busy = any(saver._group.gather(saver.busy))
        if not busy:
            saver.advance()
        assert time.monotonic() < until


@pytest.fixture
def held(monkeypatch):
    """Writing waits until the event is set."""
    event = threading.Event()
    real = Store.write_part

    def write_part(self, *arguments):
        assert event.wait(10)
        return real(self, *arguments)

    monkeypatch.setattr(Store, "write_part", write_part)
    return event


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("part_bytes", [1, 2**30])
def test_what_was_there_at_the_beginning_is_saved(tmp_path, size, part_bytes):
    def run(group):
        saver = Saver(Store(tmp_path), group, part_bytes)
        tensors = state(1)
        saver.prepare(tensors)
        for step in (1, 2):
            saver.begin(step, tensors, {"step": step})
            for tensor in tensors.values():
                tensor.add_(1)  # the training goes on
            assert saver.pending
            settle(saver)
        saver.close()
        return value_of(newest(Store(tmp_path), group))

    assert ranks(size, run) == [2.0] * size
    parts = sorted(path.name for path in Store(tmp_path).path(2).glob("part-*"))
    assert len(parts) == (size if part_bytes == 1 else 1)
    assert value_of(Store(tmp_path).newest()) == 2.0
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_training_does_not_wait_and_the_next_save_does(tmp_path, held):
    def run(group):
        saver = Saver(Store(tmp_path), group)
        saver.begin(1, state(1), {})
        assert saver.busy
        assert saver.pending
        assert Store(tmp_path).steps() == []
        threading.Timer(0.05, held.set).start()
        saver.begin(2, state(2), {})
        steps = Store(tmp_path).steps()
        saver.finish()
        return steps, saver.writing_seconds > saver.blocked_seconds

    assert ranks(1, run) == [([1], True)]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_one_ranks_failure_is_everybodys_and_leaves_the_older_set(tmp_path, monkeypatch, broken):
    def run(group):
        store = Store(tmp_path)
        saver = Saver(store, group, part_bytes=1)
        saver.begin(1, state(1), {})
        saver.finish()
        if group.world.rank == broken:

            def full(draft, number, tensors):
                raise CheckpointError("cannot save a checkpoint: No space left on device")

            store.write_part = full
        saver.begin(2, state(2), {})
        with pytest.raises(RankError, match="No space left"):
            saver.finish()
        assert not saver.pending
        group.gather(None)
        left = sorted(path.name for path in tmp_path.iterdir())
        vars(store).pop("write_part", None)
        group.gather(None)
        saver.begin(3, state(3), {})
        saver.finish()
        return left

    assert ranks(3, run) == [["step-00000001"]] * 3
    assert value_of(Store(tmp_path).newest()) == 3.0


def test_a_bug_in_the_thread_is_a_bug(tmp_path, monkeypatch):
    def broken(*arguments):
        raise KeyError("oops")

    monkeypatch.setattr(Store, "save", broken)

    def run(group):
        saver = Saver(Store(tmp_path), group)
        saver.begin(1, state(1), {})
        saver.finish()

    (error,) = ranks(1, run)
    assert error.is_bug
    assert "oops" in error.trace


def test_steady_tensors_are_copied_behind_and_others_at_once(tmp_path, monkeypatch):
    real, event = snapshot.Snapshot.take, threading.Event()

    def take(self, tensors):
        if threading.current_thread() is not threading.main_thread():
            assert event.wait(10)
        real(self, tensors)

    def run(group):
        saver = Saver(Store(tmp_path), group)
        tensors = state(1)
        saver.prepare(tensors)
        saver.begin(1, tensors, {}, steady={"t2", "t3", "t4", "t5"})
        tensors["t1"].fill_(7)
        assert not saver._copied.is_set()
        threading.Timer(0.05, event.set).start()
        saver.wait_for_copy()
        for tensor in tensors.values():
            tensor.fill_(8)
        saver.finish()

    monkeypatch.setattr(snapshot.Snapshot, "take", take)
    run(alone())
    assert value_of(Store(tmp_path).newest()) == 1.0


def test_without_a_copy_there_is_no_second_state_in_memory(tmp_path):
    def run(group):
        saver = Saver(Store(tmp_path), group)
        saver.begin(1, state(1), {}, copy=False)
        saver.finish()
        return saver._snapshot is None

    assert ranks(2, run) == [True, True]
    assert value_of(Store(tmp_path).newest()) == 1.0


def test_one_ranks_lack_of_memory_fails_the_save_on_all(tmp_path, monkeypatch):
    def run(group):
        saver = Saver(Store(tmp_path), group, part_bytes=1)
        saver.begin(1, state(1), {})
        with pytest.raises(RankError, match=r"no memory for a copy \(none left\)"):
            saver.finish()

    real, calls = snapshot._touched, []

    def touched(size, *, pinned):
        calls.append(size)
        if len(calls) == 2:
            raise MemoryError("none left")
        return real(size, pinned=pinned)

    monkeypatch.setattr(snapshot, "_touched", touched)
    assert ranks(3, run) == [None] * 3
    assert not list(tmp_path.iterdir())


def test_a_state_that_grew_gets_new_memory(tmp_path):
    def run(group):
        saver = Saver(Store(tmp_path), group)
        saver.prepare({"t1": torch.zeros(3)})
        saver.begin(1, state(4), {})
        saver.finish()

    ranks(1, run)
    assert value_of(Store(tmp_path).newest()) == 4.0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_damage_that_one_rank_sees_all_pass_over(tmp_path, size, caplog):
    def save(group):
        saver = Saver(Store(tmp_path), group, part_bytes=1)
        for step in (1, 2):
            saver.begin(step, state(step), {})
            saver.finish()

    ranks(3, save)
    path = Store(tmp_path).path(2) / "part-001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = ranks(size, lambda group: value_of(newest(Store(tmp_path), group)))
    assert found == [1.0] * size
    assert caplog.text.count("passing over a damaged checkpoint") == 1
    assert str(path) in caplog.text
    (Store(tmp_path).path(1) / "manifest.json").unlink()
    for error in ranks(size, lambda group: newest(Store(tmp_path), group)):
        assert isinstance(error, RankError)
        assert "no valid checkpoint" in error.message
