"""Reinforcement learning: the same episodes, replay and weights on any number of ranks."""

import json

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

from tests.mpi.agree import agree
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
DATA = {
    "train": "environment:gridworld",
    "inputs": "observation",
    "targets": None,
    "scale": "auto",
    "batch_size": 6,
}
ON_POLICY = {"rule": "sarsa", "slots": 3, "rounds": 2, "loss": "squared", "discount": 0.9}
DEEP = {"slots": 3, "every": 2, "replay": 40, "start": 12, "target_every": 5, "discount": 0.9}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4))


def settings(task):
    return {
        "model": network(),
        "precision": {"dtype": "float64"},
        "task": {"name": "reinforcement", "epsilon": [0.6, 0.2], "epsilon_steps": 60, **task},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.5},
        "data": DATA | {"validation": "environment:gridworld[0:7]"},
        "device": {"threads": 1, "name": "cpu"},
    }


def told(folder):
    """What the records say of samples and episodes."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [(r["batch"], r["delivered"], r["metrics"]) for r in records if r["kind"] == "step"]


@pytest.mark.parametrize("task", [ON_POLICY, DEEP], ids=["on-policy", "replay"])
def test_any_number_of_ranks_and_a_resume_learn_the_same(task, tmp_path):
    folder = shared_dir(tmp_path)
    whole = train(1, folder / "whole", run={"steps": 23}, **settings(task))
    reference = np.array(MPI.COMM_WORLD.bcast(whole[0] if whole else None))
    schedule = {"shares": list(range(1, SIZE + 1))}
    train(SIZE, folder / "parts", run={"steps": 11}, schedule=schedule, **settings(task))
    found = train(
        SIZE, folder / "parts", resume=folder / "parts", run={"steps": 23}, **settings(task)
    )
    far = distance(found[0], reference)
    agree(far < 1e-10, far)
    same = True
    if MPI.COMM_WORLD.rank == 0:
        one, parts = told(folder / "whole"), told(folder / "parts")
        same = [row[:2] for row in one] == [row[:2] for row in parts] and len(one) == 23
        plays = ("return", "length", "epsilon", "episodes", "environment_steps")
        same &= all(
            a[2].get(k) == b[2].get(k) for a, b in zip(one, parts, strict=True) for k in plays
        )
        same &= one[-1][2]["episodes"] > 0
    agree(same, "other transitions or episodes")


def test_evaluations_play_the_same_episodes_on_any_number_of_ranks(tmp_path):
    folder = shared_dir(tmp_path)
    run = {"steps": 4, "evaluate": "4 steps"}
    alone = train(1, folder / "one", run=run, **settings(DEEP))
    expected = MPI.COMM_WORLD.bcast(alone[1].metrics["validation"] if alone else None)
    found = train(SIZE, folder / "all", run=run, **settings(DEEP))[1].metrics["validation"]
    agree(found["length"] == expected["length"], (found, expected))
    agree(abs(found["return"] - expected["return"]) < 1e-12, (found, expected))
