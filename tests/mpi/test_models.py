"""Sequences and autoencoders: the same on any number of ranks, and after a resume."""

import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.data.index import FieldInfo
from hpc_train.data.layout import Layout
from hpc_train.data.writer import ShardWriter
from tests.mpi.agree import agree
from tests.mpi.runs import MODELS, distance, shared_dir, train

pytestmark = pytest.mark.mpi

SIZE = MPI.COMM_WORLD.size
MODELS["transformer"] = {"name": "transformer", "layers": 1, "heads": 2, "width": 8}
MODELS["gru"] = {"name": "gru", "layers": 1, "width": 8}
MODELS["variational"] = {
    "name": "autoencoder",
    "latent_size": 3,
    "hidden": [8],
    "variational": True,
}
TEXT = {
    "task": {"name": "next_token"},
    "data": {"inputs": "token", "targets": None, "window": 8, "stride": 3, "scale": "none"},
}
KINDS = {
    "transformer": TEXT,
    "gru": TEXT,
    "variational": {
        "task": {"name": "reconstruction", "kl_weight": 1.0},
        "data": {"train": "builtin:digits/train[:40]", "targets": None},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_ranks_and_a_resume_train_the_same(tmp_path, kind):
    folder = shared_dir(tmp_path)
    text = folder / "text"
    MPI.COMM_WORLD.Barrier()  # the other ranks have made their folders
    if MPI.COMM_WORLD.rank == 0:
        with ShardWriter(text, {"token": FieldInfo((), "uint8")}, Layout(16, 70)) as writer:
            writer.append({"token": np.arange(150, dtype=np.uint8) ** 2 % 11})
    MPI.COMM_WORLD.Barrier()
    data = {"train": str(text), "validation": str(text), "batch_size": 12} | KINDS[kind]["data"]
    if kind == "variational":
        data["validation"] = "builtin:digits/test[:30]"
    settings = {
        "model": kind,
        "precision": {"dtype": "float64"},
        "task": KINDS[kind]["task"],
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        "comm": {"collective": "native"},
    }
    if kind == "transformer":
        settings["regularization"] = {"dropout": 0.1}  # keyed by sample
    run = {"steps": 9, "evaluate": "9 steps"}
    whole = train(1, folder / "whole", run=run, data=data, **settings)
    reference = np.array(MPI.COMM_WORLD.bcast(whole[0] if whole else None))
    expected = MPI.COMM_WORLD.bcast(whole[1].metrics["validation"] if whole else None)
    settings["schedule"] = {"shares": list(range(1, SIZE + 1))}
    data = data | {"micro_batch_size": 5}
    train(SIZE, folder / "parts", run={"steps": 4}, data=data, **settings)
    found = train(SIZE, folder / "parts", resume=folder / "parts", run=run, data=data, **settings)
    far = distance(found[0], reference)
    agree(far < 1e-10, far)
    metrics = found[1].metrics["validation"]
    agree(metrics == pytest.approx(expected, rel=1e-10), (metrics, expected))
