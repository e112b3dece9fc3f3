"""Training runs for tests: small, on groups of the ranks of one MPI job."""

import numpy as np
import torch
from mpi4py import MPI

from hpc_train import Trainer
from hpc_train.comm import Comm
from hpc_train.config import load

DIGITS = {
    "train": "builtin:digits/train",
    "inputs": "image",
    "targets": "label",
    "scale": 0.0625,
    "batch_size": 64,
}
MODELS = {
    "smooth": {"name": "mlp", "hidden": [32, 32], "activation": "tanh"},
    "digits-cnn": {"name": "cnn", "channels": [8, 16], "hidden": 32},
}
TOLERANCE = {
    ("smooth", "float64"): 1e-10,
    ("digits-cnn", "float64"): 1e-10,
    ("smooth", "float32"): 1e-5,
    ("digits-cnn", "float32"): 1e-3,
}


def group(size):
    """The first `size` ranks as a communicator; None on the others."""
    rank = MPI.COMM_WORLD.rank
    base = MPI.COMM_WORLD.Split(0 if rank < size else MPI.UNDEFINED, rank)
    return None if base == MPI.COMM_NULL else Comm(MPI, base)


def vector(model):
    """All weights and buffers of a model, flat, in float64."""
    tensors = [t.detach().double().reshape(-1) for t in model.state_dict().values()]
    return torch.cat(tensors).numpy()


def train(size, run_dir, *, resume=None, model="smooth", data=None, **sections):
    """Train on the first `size` ranks; gives weights and result on them, None on the others."""
    comm = group(size)
    found = None
    if comm is not None:
        sections.setdefault("optimizer", {"name": "sgd", "lr": 0.1, "momentum": 0.9})
        sections["run"] = {"steps": 50, "evaluate": "never", "dir": str(run_dir)} | sections.get(
            "run", {}
        )
        sections.setdefault("device", {"threads": 1, "name": "cpu"})
        sections["data"] = DIGITS | (data or {})
        if "comm" in sections:  # the trainer's own argument of that name is the ranks
            config = load(None, sections={**sections, "model": MODELS[model]}).config
            trainer = Trainer(config=config, comm=comm, quiet=True)
        else:
            network = MODELS[model] if isinstance(model, str) else model
            trainer = Trainer(network, comm=comm, quiet=True, **sections)
        result = trainer.fit(resume=resume)
        found = vector(trainer.model), result
    MPI.COMM_WORLD.Barrier()
    return found


def shared_dir(tmp_path):
    """Rank 0's temporary directory, on every rank."""
    from pathlib import Path

    return Path(MPI.COMM_WORLD.bcast(str(tmp_path)))


def distance(a, b):
    """Norm-wise relative distance of two vectors."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
