"""Who computes is free: any number of ranks, any split, any interruption, the same weights."""

import json

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpc_train.comm import COLLECTIVES
from hpc_train.data import make_order, open_dataset
from hpc_train.models import cnn, mlp
from hpc_train.plan import Course
from hpc_train.train.seeds import seeded_weights
from tests.mpi.agree import agree
from tests.mpi.runs import DIGITS, MODELS, TOLERANCE, distance, shared_dir, train, vector

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
SPLITS = {1: [[1]], 2: [[1, 3], [1, 0]], 3: [[5, 0, 2]], 4: [[1, 2, 3, 4], [0, 1, 0, 7]]}


def plain_torch(model_name, dtype, steps=50):
    """The same training by hand: one process, torch's own optimizer, the order's batches."""
    dataset = open_dataset(DIGITS["train"], ["image", "label"], 1024)
    order = make_order("window", dataset.blocks(), 0, len(dataset.blocks()))
    course = Course(dataset.num_samples, 64)
    import h5py

    images, labels = [], []
    for shard in dataset.index.shards:
        with h5py.File(dataset.root / shard.file) as file:
            images.append(file["image"][:])
            labels.append(file["label"][:])
    x = torch.from_numpy(np.concatenate(images)).to(dtype) * 0.0625
    y = torch.from_numpy(np.concatenate(labels))
    arguments = {k: v for k, v in MODELS[model_name].items() if k != "name"}
    build = {"mlp": mlp, "cnn": cnn}[MODELS[model_name]["name"]]
    with seeded_weights(0):
        model = build((1, 8, 8), 10, **arguments).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for number in range(steps):
        ids = order.ids(course.batch(number))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[ids]), y[ids]).backward()
        optimizer.step()
    return vector(model)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_any_number_of_ranks_equals_plain_torch(model, dtype, tmp_path):
    folder = shared_dir(tmp_path)
    found = train(SIZE, folder / "run", model=model, precision={"dtype": dtype})
    expected = plain_torch(model, getattr(torch, dtype))
    far = distance(found[0], expected)
    agree(far < TOLERANCE[model, dtype], far)


@pytest.mark.parametrize("collective", sorted(set(COLLECTIVES) - {"nccl"}))
def test_any_collective_equals_plain_torch(collective, tmp_path):
    folder = shared_dir(tmp_path)
    precision = {"dtype": "float64"}
    shares = SPLITS.get(SIZE, [None])[-1]
    found = train(
        SIZE,
        folder / "run",
        precision=precision,
        comm={"collective": collective},
        schedule={"shares": shares} if shares else {},
    )
    far = distance(found[0], plain_torch("smooth", torch.float64))
    agree(far < TOLERANCE["smooth", "float64"], far)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("shares", SPLITS.get(SIZE, []))
def test_any_split_equals_plain_torch(model, dtype, shares, tmp_path):
    folder = shared_dir(tmp_path)
    found = train(
        SIZE,
        folder / "run",
        model=model,
        precision={"dtype": dtype},
        schedule={"shares": shares},
        data={"micro_batch_size": 10},
    )
    far = distance(found[0], plain_torch(model, getattr(torch, dtype)))
    agree(far < TOLERANCE[model, dtype], far)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_one_step_in_float32_is_near_on_any_split(optimizer, tmp_path):
    folder = shared_dir(tmp_path)
    settings = {"optimizer": {"name": optimizer, "lr": 0.01, "clip_norm": 0.5, "eps": 1e-3}}
    alone = train(1, folder / "one", run={"steps": 1}, **settings)
    reference = np.array(MPI.COMM_WORLD.bcast(alone[0] if alone else None))
    found = train(SIZE, folder / "all", run={"steps": 1}, **settings)
    agree(distance(found[0], reference) < 1e-6, distance(found[0], reference))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("model", sorted(MODELS))
def test_resumed_on_another_number_of_ranks_in_mid_epoch_equals_uninterrupted(model, tmp_path):
    folder = shared_dir(tmp_path)
    settings = {"model": model, "precision": {"dtype": "float64"}}
    settings["optimizer"] = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}
    whole = train(1, folder / "whole", **settings)
    reference = np.array(MPI.COMM_WORLD.bcast(whole[0] if whole else None))
    train(SIZE, folder / "parts", run={"steps": 30}, **settings)
    found = train(
        SIZE - 1, folder / "parts", resume=folder / "parts", run={"steps": 50}, **settings
    )
    far = distance(found[0], reference) if found else 0.0
    agree(far < 1e-10, far)
    if MPI.COMM_WORLD.rank == 0:
        records = {
            name: [json.loads(line) for line in (folder / name / "metrics.jsonl").open()]
            for name in ("whole", "parts")
        }
        steps = {
            name: [(r["step"], r["batch"], r["delivered"]) for r in rows if r["kind"] == "step"]
            for name, rows in records.items()
        }
        same = steps["whole"] == steps["parts"] and len(steps["whole"]) == 50
    else:
        same = True
    agree(same, "the samples delivered differ")


def test_class_weights_are_exact_over_unequal_splits(tmp_path):
    folder = shared_dir(tmp_path)
    task = {"name": "classification", "class_weights": [1, 2, 3, 4, 5, 0.5, 0, 1, 1, 9]}
    settings = {"precision": {"dtype": "float64"}, "task": task, "run": {"steps": 20}}
    alone = train(1, folder / "one", **settings)
    reference = np.array(MPI.COMM_WORLD.bcast(alone[0] if alone else None))
    shares = list(range(1, SIZE + 1))
    found = train(SIZE, folder / "all", schedule={"shares": shares}, **settings)
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


def test_evaluation_is_exact_on_any_number_of_ranks(tmp_path):
    folder = shared_dir(tmp_path)
    settings = {
        "precision": {"dtype": "float64"},
        "run": {"steps": 5},
        "data": {"test": "builtin:digits/test[:97]", "micro_batch_size": 13},
    }
    alone = train(1, folder / "one", **settings)
    metrics = MPI.COMM_WORLD.bcast(alone[1].metrics["test"] if alone else None)
    found = train(SIZE, folder / "all", **settings)[1].metrics["test"]
    agree(found["accuracy"] == metrics["accuracy"], (found, metrics))
    agree(abs(found["loss"] - metrics["loss"]) < 1e-12, (found, metrics))
