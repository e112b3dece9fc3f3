"""Optimizers over flat parameters: torch's own, fused kernels where the device has them."""

from __future__ import annotations

import torch

from hpc_train.errors import UsageError, unknown
from hpc_train.optim.optimizers.adagrad import ADAGRAD
from hpc_train.optim.optimizers.adam import ADAM, ADAMW
from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings
from hpc_train.optim.optimizers.lamb import LAMB
from hpc_train.optim.optimizers.lars import LARS
from hpc_train.optim.optimizers.rmsprop import RMSPROP
from hpc_train.optim.optimizers.sgd import SGD

__all__ = ["OPTIMIZERS", "Kind", "Settings", "find_optimizer", "make_optimizer"]

OPTIMIZERS: dict[str, Kind] = {
    "sgd": SGD,
    "adam": ADAM,
    "adamw": ADAMW,
    "rmsprop": RMSPROP,
    "adagrad": ADAGRAD,
    "lamb": LAMB,
    "lars": LARS,
}


def find_optimizer(name: str) -> Kind:
    """What is known of the optimizer called `name`."""
    if name not in OPTIMIZERS:
        raise UsageError(unknown("optimizer", name, OPTIMIZERS))
    return OPTIMIZERS[name]


def make_optimizer(name: str, parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer called `name` over `parameters`: flat tensors, or torch's groups of them."""
    return find_optimizer(name).make(parameters, settings)
