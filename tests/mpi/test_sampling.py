"""Sampling by weight: the same samples on any number of ranks, resumed or not."""

import json

import numpy as np
import pytest
from mpi4py import MPI

from tests.mpi.agree import agree
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
SETTINGS = {
    "precision": {"dtype": "float64"},
    "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
}


@pytest.mark.parametrize(
    "sampling",
    [
        {"sampling": "balanced", "samples_per_epoch": 500},
        {"sampling": "weighted", "sampling_weights": "label"},
        {"samples_per_epoch": 600},
    ],
)
def test_any_number_of_ranks_and_a_resume_in_mid_epoch_are_the_same(sampling, tmp_path):
    folder = shared_dir(tmp_path)
    settings = SETTINGS | {"data": sampling}
    whole = train(1, folder / "one", run={"steps": 24}, **settings)
    reference = np.array(MPI.COMM_WORLD.bcast(whole[0] if whole else None))
    found = train(SIZE, folder / "all", run={"steps": 24}, **settings)
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))
    train(SIZE, folder / "parts", run={"steps": 11}, **settings)
    parts = folder / "parts"
    found = train(max(1, SIZE - 1), parts, resume=parts, run={"steps": 24}, **settings)
    far = distance(found[0], reference) if found else 0.0
    agree(far < 1e-10, far)
    if MPI.COMM_WORLD.rank == 0:
        lines = [json.loads(line) for line in (folder / "all" / "metrics.jsonl").open()]
        epochs = [line["epoch"] for line in lines if line["kind"] == "step"]
        per_epoch = -(-sampling.get("samples_per_epoch", 1437) // 64)
        assert epochs == [step // per_epoch for step in range(24)]
