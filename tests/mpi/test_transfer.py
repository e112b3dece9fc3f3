"""Frozen layers on any number of ranks, opened at the same batch, also after a resume."""

import numpy as np
import pytest
from mpi4py import MPI

from tests.mpi.agree import agree
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size


def run(size, folder, epochs, resume=None, **sections):
    return train(
        size,
        folder,
        resume=resume,
        run={"steps": None, "epochs": epochs},
        data={"train": "builtin:digits/train[:320]"},
        precision={"dtype": "float64"},
        optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.5, "weight_decay": 0.01},
        **sections,
    )


def test_any_number_of_ranks_and_a_resume_equal_one_rank(tmp_path):
    folder = shared_dir(tmp_path)
    run(1, folder / "source", 1)
    transfer = {"source": str(folder / "source"), "replace": ["7.*"], "unfreeze": {"1": ["1.*"]}}
    alone = run(1, folder / "one", 2, transfer=transfer)
    expected = np.array(MPI.COMM_WORLD.bcast(alone[0] if alone else None))
    found = run(SIZE, folder / "all", 2, transfer=transfer)
    far = distance(found[0], expected)
    agree(far < 1e-10, far)
    run(SIZE, folder / "parts", 1, transfer=transfer)
    fewer = max(1, SIZE - 1)
    again = run(fewer, folder / "parts", 2, folder / "parts", transfer=transfer)
    far = distance(again[0], expected) if again else 0.0
    agree(far < 1e-10, far)
