"""Optimizers, curves and mixed precision: the same on any number of ranks, and after a resume."""

import json

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpc_train.tasks import Classification, Losses
from tests.mpi.agree import agree
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
STEPS = 12
ALONE = {"decay_norms_and_biases": False, "weight_decay": 0.1}
TECHNIQUES = {
    "rmsprop": {
        "optimizer": {"name": "rmsprop", "lr": 0.002, "momentum": 0.5, "centered": True},
        "learning_rate": {"name": "step", "gamma": 0.5, "every": "5 steps", "warmup_steps": 2},
    },
    "adagrad": {
        "optimizer": {"name": "adagrad", "lr": 0.02, **ALONE},
        "learning_rate": {"name": "one_cycle"},
    },
    "lamb": {
        "optimizer": {"name": "lamb", "lr": 0.02, **ALONE},
        "learning_rate": {"name": "polynomial", "scale": "sqrt", "power": 2.0},
    },
    "lars": {
        "optimizer": {"name": "lars", "lr": 0.02, "momentum": 0.5, "trust_coefficient": 0.1},
        "learning_rate": {"name": "cosine_restarts", "every": "4 steps"},
    },
    "groups": {
        "optimizer": {"name": "adamw", "lr": 0.005, "depth_decay": 0.5, "rates": {"*.bias": 2.0}}
        | ALONE,
        "device": {"threads": 1, "name": "cpu", "activation_checkpointing": "auto"},
    },
    "plateau": {
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        "learning_rate": {"name": "plateau", "patience": 0, "threshold": 0.9, "gamma": 0.5},
        "data": {"validation": "builtin:digits/test[:97]"},
        "run": {"evaluate": "3 steps"},
    },
}
SPANNING = {"adagrad", "lamb"}  # their curves depend on the length of the run


def settings(name, **run):
    sections = {"precision": {"dtype": "float64"}, **TECHNIQUES[name]}
    sections["run"] = {"steps": STEPS, **sections.get("run", {}), **run}
    return sections


def rates(folder):
    """The learning rate of each batch, on every rank."""
    found = None
    if MPI.COMM_WORLD.rank == 0:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        found = [r["lr"] for r in map(json.loads, lines) if r["kind"] == "step"]
    return MPI.COMM_WORLD.bcast(found)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", sorted(TECHNIQUES))
def test_any_split_and_a_resume_equal_one_rank(name, tmp_path):
    folder = shared_dir(tmp_path)
    alone = train(1, folder / "one", **settings(name))
    reference = np.array(MPI.COMM_WORLD.bcast(alone[0] if alone else None))
    shares = {"shares": list(range(1, SIZE + 1))}
    if name in SPANNING:
        found = train(SIZE, folder / "all", schedule=shares, **settings(name))
    else:
        train(SIZE, folder / "all", schedule=shares, **settings(name, steps=STEPS // 2))
        found = train(SIZE - 1, folder / "all", resume=folder / "all", **settings(name))
    far = distance(found[0], reference) if found else 0.0
    agree(far < 1e-10, far)
    told = rates(folder / "one")
    agree(rates(folder / "all") == told, told)
    agree(len(set(told)) > 1 or name == "groups", told)


class Loud(Classification):
    """One sample, on one rank, whose gradient does not fit into float16."""

    def losses(self, model, batch):
        found = super().losses(model, batch)
        loud = torch.where(batch.ids == int(LOUD), 1e8, 1.0)
        return Losses(found.values * loud, sums=found.sums)


LOUD = 0


@pytest.mark.mpi(min_size=2)
def test_an_overflow_on_one_rank_skips_the_step_on_all(tmp_path):
    global LOUD
    folder = shared_dir(tmp_path)
    options = {
        "optimizer": {"name": "sgd", "lr": 0.02},
        "precision": {"autocast": "float16"},
        "data": {"shuffle": "none"},
        "task": {"name": "tests.mpi.test_optim:Loud"},
    }
    LOUD = 64 + 3  # in the second batch of two
    first = train(SIZE, folder / "first", run={"steps": 1}, **options)
    both = train(SIZE, folder / "both", run={"steps": 2}, **options)
    agree(both[1].step == 1, both[1].step)
    agree(np.array_equal(first[0], both[0]), "a rank made the update")
    if MPI.COMM_WORLD.rank == 0:
        lines = (folder / "both" / "metrics.jsonl").read_text().splitlines()
        told = [r["text"] for r in map(json.loads, lines) if r["kind"] == "event"]
    else:
        told = ["loss scale 32768"]
    agree(told == ["loss scale 32768"], told)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
def test_mixed_precision_is_near_on_any_split(autocast, tmp_path):
    folder = shared_dir(tmp_path)
    options = {
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        "precision": {"autocast": autocast},
        "run": {"steps": STEPS},
    }
    alone = train(1, folder / "one", **options)
    reference = np.array(MPI.COMM_WORLD.bcast(alone[0] if alone else None))
    shares = {"shares": list(range(1, SIZE + 1))}
    found = train(SIZE, folder / "all", schedule=shares, **options)
    agree(distance(found[0], reference) < 1e-3, distance(found[0], reference))
