"""Skipping damage: all ranks agree on what is left, whoever finds it."""

import json
import shutil

import h5py
import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.data import open_dataset
from hpc_train.world import RankError
from tests.mpi.agree import agree
from tests.mpi.runs import DIGITS, distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size


def damaged(folder):
    """The digits, one chunk of them broken; on rank 0."""
    dataset = open_dataset(DIGITS["train"], ["image", "label"], 1024)
    shutil.copytree(dataset.root, folder)
    path = folder / dataset.index.shards[0].file
    with h5py.File(path) as file:
        place = file["image"].id.get_chunk_info(1)
        rows = file["image"].chunks[0]
    with path.open("r+b") as file:
        file.seek(place.byte_offset + 5)
        file.write(b"\xff\x00\xff")
    return rows


def test_any_number_of_ranks_trains_on_what_is_left(tmp_path):
    folder = shared_dir(tmp_path)
    rows = MPI.COMM_WORLD.bcast(damaged(folder / "set") if MPI.COMM_WORLD.rank == 0 else None)
    settings = {
        "precision": {"dtype": "float64"},
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        "run": {"steps": 23},  # an epoch
        "data": {"train": str(folder / "set"), "on_error": "skip"},
    }
    whole = train(1, folder / "one", **settings)
    reference = np.array(MPI.COMM_WORLD.bcast(whole[0] if whole else None))
    found = train(SIZE, folder / "all", **settings)
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))
    agree(found[1].skipped_samples == rows, found[1].skipped_samples)
    if MPI.COMM_WORLD.rank == 0:
        lines = [json.loads(line) for line in (folder / "all" / "metrics.jsonl").open()]
        assert sum(line.get("skipped_samples", 0) for line in lines) == rows
    settings["data"] = {"train": str(folder / "set")}
    with pytest.raises(RankError, match="checksum does not match"):
        train(SIZE, folder / "stopped", **settings)
