"""Optimizers over flat parameters: torch's own, fused kernels where the device has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hpc_train.errors import UsageError, unknown


@dataclass(frozen=True)
class Settings:
    """What an optimizer is told; each takes what it knows of it."""

    lr: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


Parameters = Sequence[torch.nn.Parameter]


def sgd(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with (Nesterov) momentum and L2 weight decay."""
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def adam(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Adam with L2 weight decay (Kingma and Ba, ICLR 2015)."""
    return torch.optim.Adam(parameters, **_moments(settings))


def adamw(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""
    return torch.optim.AdamW(parameters, **_moments(settings))


def _moments(settings: Settings) -> dict[str, Any]:
    """What both kinds of Adam are told."""
    return {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
        "fused": True,
    }


OPTIMIZERS: dict[str, Callable[[Parameters, Settings], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
}

# name -> the tensors that it keeps for each weight, and "step" if it counts its updates
STATE: dict[str, frozenset[str]] = {
    "sgd": frozenset({"momentum_buffer"}),
    "adam": frozenset({"step", "exp_avg", "exp_avg_sq"}),
    "adamw": frozenset({"step", "exp_avg", "exp_avg_sq"}),
}


def make_optimizer(name: str, parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer called `name` over `parameters`, which may be flat arenas.

    All of them are element-wise, so it makes no difference where one weight ends.
    """
    if name not in OPTIMIZERS:
        raise UsageError(unknown("optimizer", name, OPTIMIZERS))
    return OPTIMIZERS[name](parameters, settings)
