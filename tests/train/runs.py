"""Small runs of one rank for tests of the trainer."""

import json
from functools import cache

import torch
from torch import nn

from hpc_train import Trainer
from hpc_train.comm import connect
from tests.data.files import make_dataset

NET = {"name": "mlp", "hidden": [4], "activation": "tanh"}


@cache
def comm():
    """The one rank, met once."""
    return connect()


def trainer(tmp_path, model=NET, *, stream=None, **sections):
    """A trainer of 33 samples of 3 numbers and 7 classes, in 5 batches an epoch."""
    folder = tmp_path / "data"
    if not folder.exists():
        folder.mkdir()
        make_dataset(folder, [20, 13]).index.write(folder)
    data = {"train": str(folder), "inputs": "x", "targets": "y", "batch_size": 7, "scale": 0.01}
    sections["data"] = data | sections.get("data", {})
    sections["run"] = {"epochs": 2, "dir": str(tmp_path / "run")} | sections.get("run", {})
    sections.setdefault("precision", {"dtype": "float64"})
    sections.setdefault("device", {"name": "cpu", "threads": 1})
    if isinstance(model, nn.Module):
        torch.manual_seed(0)
    return Trainer(model, comm=comm(), quiet=stream is None, stream=stream, **sections)


def records(tmp_path, kind, name="run"):
    """The records of one kind in the run's metrics."""
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def result(tmp_path, name="run"):
    """The document that the run left."""
    return json.loads((tmp_path / name / "result.json").read_text())


def weights(model):
    """All parameters and buffers, flat."""
    return torch.cat([t.detach().double().reshape(-1) for t in model.state_dict().values()])
