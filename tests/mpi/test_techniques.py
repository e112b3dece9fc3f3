"""Techniques on any number of ranks and any split: the same weights and the same evaluations."""

import numpy as np
import pytest
from mpi4py import MPI
from torch import nn

from hpc_train.world import RankError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
SHARES = {1: [1], 2: [1, 3], 3: [5, 0, 2], 4: [0, 1, 2, 4]}.get(SIZE)
DROPPED = {"name": "mlp", "hidden": [16], "activation": "tanh", "dropout": 0.5}
NORMED = {"name": "tests.mpi.test_techniques:normed", "sync_batchnorm": True}


def normed(input_shape, num_classes):
    """A smooth network with batch norms."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(256, 16),
        nn.BatchNorm1d(16),
        nn.Tanh(),
        nn.Linear(16, num_classes),
    )


TECHNIQUES = {
    "augmentation": {
        "augmentation": [
            {"name": "rotation"},
            {"name": "shift", "probability": 0.7},
            {"name": "cutout", "size": 2},
            {"name": "noise"},
        ]
    },
    "penalty": {"regularization": {"l1": 1e-3, "l2": 1e-2}},
    "max_norm": {"regularization": {"max_norm": 0.5}},
    "label_smoothing": {"regularization": {"label_smoothing": 0.1}},
    "dropout": {"regularization": {"dropout": 0.3}, "model": DROPPED},
    "mixup": {"regularization": {"mixup": 0.4, "cutmix": 1.0}, "augmentation": [{"name": "flip"}]},
    "ema": {"regularization": {"ema_decay": 0.8}},
    "swa": {"regularization": {"swa_start": 0.5, "swa_every": "2 steps"}},
    "early_stopping": {"early_stopping": {"metric": "min loss", "patience": 1, "min_delta": 1.0}},
    "lsuv": {"initialization": {"name": "lsuv"}},
    "sync_batchnorm": {"model": NORMED},
    "sync_batchnorm, computed again": {
        "model": NORMED,
        "device": {"name": "cpu", "threads": 1, "activation_checkpointing": "auto"},
    },
    "dropout, computed again": {
        "regularization": {"dropout": 0.3},
        "model": DROPPED,
        "device": {"name": "cpu", "threads": 1, "activation_checkpointing": "auto"},
    },
}
RUN = {"steps": 12, "evaluate": "3 steps"}
DATA = {"validation": "builtin:digits/test[:50]", "test": "builtin:digits/test[50:97]"}


def run(size, folder, name, **more):
    sections = {"model": "smooth", **TECHNIQUES[name]}
    return train(
        size,
        folder,
        model=sections.pop("model"),
        precision={"dtype": "float64"},
        optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.5},
        **{"run": RUN, "data": DATA, **sections, **more},
    )


@pytest.mark.parametrize("name", sorted(TECHNIQUES))
def test_any_split_and_a_resume_equal_one_rank(name, tmp_path):
    folder = shared_dir(tmp_path)
    alone = run(1, folder / "one", name)
    told = (alone[0], alone[1].metrics) if alone else None
    weights, metrics = MPI.COMM_WORLD.bcast(told)
    schedule = {"shares": SHARES} if SHARES else {}
    micro = {} if name.startswith("sync_batchnorm") else {"micro_batch_size": 10}
    found = run(SIZE, folder / "all", name, schedule=schedule, data=DATA | micro)
    far = distance(found[0], np.array(weights))
    agree(far < 1e-10, far)
    for kind in metrics:
        off = abs(found[1].metrics[kind]["loss"] - metrics[kind]["loss"])
        agree(off < 1e-10, (kind, off))
    if name == "early_stopping":  # which ended the run long before its time
        agree(found[1].step == 6, found[1].step)
        return
    part = {"run": RUN | {"steps": 7, "evaluate": "never"}}
    if name == "swa":  # which begins after a part of the run's length
        part["regularization"] = TECHNIQUES["swa"]["regularization"] | {"swa_start": 6 / 7}
    run(SIZE, folder / "parts", name, **part)
    fewer = max(1, SIZE - 1)
    again = run(fewer, folder / "parts", name, resume=folder / "parts")
    far = distance(again[0], np.array(weights)) if again else 0.0
    agree(far < 1e-10, far)


def test_an_ensemble_is_the_same_on_any_number_of_ranks(tmp_path):
    folder = shared_dir(tmp_path)
    sections = {
        "ensemble": {"members": 2},
        "precision": {"dtype": "float64"},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.5},
        "run": {"steps": 6},
        "data": DATA,
    }
    alone = train(1, folder / "one", **sections)
    told = (alone[0], alone[1].metrics) if alone else None
    weights, metrics = MPI.COMM_WORLD.bcast(told)
    found = train(SIZE, folder / "all", **sections)
    far = distance(found[0], np.array(weights))
    agree(far < 1e-10, far)
    agree(found[1].metrics.keys() == metrics.keys(), found[1].metrics)
    for kind in metrics:
        off = abs(found[1].metrics[kind]["loss"] - metrics[kind]["loss"])
        agree(off < 1e-10, (kind, off))


def breaking(input_shape, num_classes):
    """A network with batch norm that fails on the last rank."""
    model = normed(input_shape, num_classes)

    def fail(module, inputs, output):
        if module.training and MPI.COMM_WORLD.rank == SIZE - 1:
            raise RuntimeError("broken sample")

    model[4].register_forward_hook(fail)  # between the first one and the second
    return model


def test_a_rank_that_fails_between_two_batch_norms_ends_the_run_on_all(tmp_path):
    folder = shared_dir(tmp_path)
    model = {"name": "tests.mpi.test_techniques:breaking", "sync_batchnorm": True}

    def fit():
        train(SIZE, folder / "run", model=model, run={"steps": 3})

    error = agree_raises(RankError, fit)
    agree("broken sample" in str(error), error)
