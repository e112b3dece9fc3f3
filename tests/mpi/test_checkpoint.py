"""Sets of many ranks: written in parts behind the training, read on any number of ranks."""

import json
import logging

import pytest
from mpi4py import MPI

from hpc_train.checkpoint import Pace, Store, divide, saver
from hpc_train.errors import CheckpointError
from tests.mpi.agree import agree
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE, RANK = MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank


@pytest.fixture
def many_parts(monkeypatch):
    """Let the smallest state be worth a part on every rank."""

    def num_parts(total_bytes, num_ranks, part_bytes):
        return divide.num_parts(total_bytes, num_ranks, 1)

    monkeypatch.setattr(saver, "num_parts", num_parts)


def sets(folder):
    """Step and number of parts of each set; rank 0's view, on every rank."""
    found = [
        (step, len(list(Store(folder).path(step).glob("part-*")))) for step in Store(folder).steps()
    ]
    return MPI.COMM_WORLD.bcast(found)


def settings(**checkpoint):
    return {
        "precision": {"dtype": "float64"},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "checkpoint": {"every": "7 steps", "keep_last": 9} | checkpoint,
    }


@pytest.mark.parametrize("asynchronous", [True, False])
def test_sets_of_many_parts_are_read_on_fewer_ranks(many_parts, asynchronous, tmp_path):
    folder = shared_dir(tmp_path)
    run = {"steps": 20}
    whole = train(SIZE, folder / "whole", run=run, **settings(every="never"))
    train(SIZE, folder / "run", run={"steps": 15}, **settings(asynchronous=asynchronous))
    found = sets(folder / "run" / "checkpoints")
    agree(found == [(step, SIZE) for step in (7, 14, 15)], found)
    fewer = max(1, SIZE - 1)
    resumed = train(fewer, folder / "run", resume=folder / "run", run=run, **settings())
    far = distance(resumed[0], whole[0]) if resumed else 0.0
    agree(far < 1e-10, far)


def test_a_damaged_set_is_passed_over_by_all(many_parts, tmp_path):
    folder = shared_dir(tmp_path)
    train(SIZE, folder / "run", run={"steps": 14}, **settings())
    if RANK == 0:
        part = max(Store(folder / "run/checkpoints").path(14).glob("part-*"))
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 8
        part.write_bytes(content)
    MPI.COMM_WORLD.Barrier()
    run = {"steps": 20}
    train(SIZE, folder / "run", resume=folder / "run", run=run, **settings())
    if RANK == 0:
        lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").open()]
        batches = [line["batch"] for line in lines if line["kind"] == "step"]
    else:
        batches = list(range(1, 21))
    agree(batches == list(range(1, 21)), batches)


def test_a_rank_that_cannot_write_warns_and_the_run_goes_on(
    many_parts, tmp_path, monkeypatch, caplog
):
    folder = shared_dir(tmp_path)
    real, calls = saver.Store.write_part, []

    def write_part(self, draft, number, tensors):
        calls.append(draft)
        if RANK == SIZE - 1 and "00000014" in draft.name:
            raise CheckpointError("cannot save a checkpoint: No space left on device")
        return real(self, draft, number, tensors)

    def save(self, step, tensors, notes):  # a single rank writes its set as a whole
        draft = self.begin(step)
        part = write_part(self, draft, 0, tensors)
        return self.publish(draft, step, notes, [part])

    monkeypatch.setattr(saver.Store, "write_part", write_part)
    monkeypatch.setattr(saver.Store, "save", save)
    with caplog.at_level(logging.WARNING):
        found = train(SIZE, folder / "run", run={"steps": 30}, **settings())
    agree(found[1].status == "done", found[1])
    warned = "No space left on device; going on with the older ones" in caplog.text
    agree(warned == (RANK == 0), caplog.text)  # once, though all know of it
    steps = [step for step, _ in sets(folder / "run" / "checkpoints")]
    agree(steps == [7, 21, 28, 30], steps)


def test_rank_0s_clock_saves_in_the_middle_of_an_epoch(many_parts, tmp_path, monkeypatch):
    folder = shared_dir(tmp_path)
    calls = []

    def seconds(self):  # rank 0 asks once a step; the others need no clock
        calls.append(1)
        assert RANK == 0
        return 0.0 if len(calls) == 5 else 1e9

    monkeypatch.setattr(Pace, "seconds", property(seconds))
    train(SIZE, folder / "run", run={"steps": 20}, **settings(every="10 minutes"))
    steps = [step for step, _ in sets(folder / "run" / "checkpoints")]
    agree(steps == [5, 20], steps)
