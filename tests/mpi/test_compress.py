"""Masks and ranges: the same on any split, and after a resume on another number of ranks."""

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

from hpc_train.comm import Comm
from hpc_train.compress import Gradual, make_pruner
from hpc_train.compress.pruning import Rule, digest
from hpc_train.optim import Settings
from hpc_train.plan import Batch
from hpc_train.strategies import Learner
from hpc_train.train.techniques.pruning import Course, Pruning
from tests.mpi.agree import agree
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
SHARES = {1: [1], 2: [1, 3], 3: [5, 0, 2], 4: [0, 1, 2, 4]}.get(SIZE)
DATA = {"test": "builtin:digits/test[50:97]"}
GRADUAL = {"every": "2 steps", "begin": 0.1, "end": 0.45}
KINDS = {
    "magnitude": {"prune": "magnitude", **GRADUAL},
    "saliency, rewound": {"prune": "saliency", "rewind": 0.1, **GRADUAL},
    "sensitivity": {"prune": "sensitivity", "scan_samples": 101, **GRADUAL},
    "channels": {"prune": "channels", "channel_multiple": 2, "amount": 0.5, **GRADUAL},
    "int8": {"quantize": "int8", "quantize_begin": 0.25},
    "both": {"prune": "pattern", "quantize": "int8", "quantize_begin": 0.25, **GRADUAL},
}


def run(size, folder, name, **more):
    sections = {
        "run": {"steps": 12, "evaluate": "never"},
        "data": DATA,
        "precision": {"dtype": "float64"},
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        "compress": KINDS[name],
    }
    return train(size, folder, model="smooth", **(sections | more))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_any_split_and_a_resume_equal_one_rank(name, tmp_path):
    folder = shared_dir(tmp_path)
    alone = run(1, folder / "one", name)
    told = (alone[0], alone[1].metrics) if alone else None
    weights, metrics = MPI.COMM_WORLD.bcast(told)
    schedule = {"shares": SHARES} if SHARES else {}
    found = run(SIZE, folder / "all", name, schedule=schedule, data=DATA | {"micro_batch_size": 10})
    agree(*same(found[0], weights))
    off = abs(found[1].metrics["test"]["loss"] - metrics["test"]["loss"])
    agree(off < 1e-10, off)
    half = {"run": {"steps": 6, "evaluate": "never"}, "compress": halved(KINDS[name])}
    run(SIZE, folder / "parts", name, **half)
    again = run(max(1, SIZE - 1), folder / "parts", name, resume=folder / "parts")
    agree(*(same(again[0], weights) if again else (True, "")))


def halved(section):
    """The section with which half a run does what the first half of the whole one does."""
    return {
        key: min(2 * value, 0.999) if key in ("begin", "end", "rewind", "quantize_begin") else value
        for key, value in section.items()
    }


def same(found, expected):
    """Whether weights are the same, and zero in the same places."""
    if not np.array_equal(found == 0, expected == 0):
        return False, "masks differ"
    far = distance(found, np.array(expected))
    return far < 1e-10, far


def test_masks_of_ranks_that_round_differently_are_those_of_rank_0():
    group = MPI.COMM_WORLD
    torch.manual_seed(group.rank)
    model = nn.Linear(8, 8)
    comm = Comm(MPI, group)
    learner = Learner("all", model.named_parameters(), "sgd", Settings(lr=0.1))
    pruner = make_pruner("magnitude", Rule(model, torch.zeros(1, 8), 0.5))
    pruning = Pruning(pruner, Course(Gradual(0, 0, 1, 0.5)), [learner], comm)
    pruning.begin(Batch(0, 0, 0, 1))
    pruning.updated(learner)
    masks = {n.removeprefix("mask/"): mask for n, mask in pruning.tensors().items()}
    hashes = group.allgather(digest(masks))
    agree(len(set(hashes)) == 1, hashes)
    agree(masks["weight"].sum() == 32, masks["weight"].sum())
    agree((model.weight[~masks["weight"]] == 0).all(), "a mask was not applied")
