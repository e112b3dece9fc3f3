"""Adversarial training: the same two players on any number of ranks, and after a resume."""

import numpy as np
import pytest
from mpi4py import MPI

from tests.mpi.agree import agree
from tests.mpi.runs import MODELS, distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
MODELS["gan"] = {"name": "dcgan", "latent_size": 6, "channels": [8, 4]}
SETTINGS = {
    "model": "gan",
    "precision": {"dtype": "float64"},
    "task": {"name": "adversarial", "loss": "wgan-gp", "critic_steps": 3},
    "optimizer": {
        "name": "sgd",
        "lr": 0.02,
        "momentum": 0.5,
        "phases": {"generator": {"lr": 0.05}},
    },
    "data": {"batch_size": 16, "targets": None, "train": "builtin:digits/train[:40]"},
}


def test_any_number_of_ranks_and_a_resume_train_the_same_players(tmp_path):
    folder = shared_dir(tmp_path)
    whole = train(1, folder / "whole", run={"steps": 11}, **SETTINGS)
    reference = np.array(MPI.COMM_WORLD.bcast(whole[0] if whole else None))
    shares = {"shares": list(range(1, SIZE + 1))}
    data = SETTINGS["data"] | {"micro_batch_size": 5}
    settings = SETTINGS | {"schedule": shares, "data": data}
    train(SIZE, folder / "parts", run={"steps": 4}, **settings)  # between two of the generator's
    found = train(SIZE, folder / "parts", resume=folder / "parts", run={"steps": 11}, **settings)
    far = distance(found[0], reference)
    agree(far < 1e-10, far)
