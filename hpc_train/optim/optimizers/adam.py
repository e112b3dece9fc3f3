"""Adam, with weight decay of both kinds."""

from __future__ import annotations

from typing import Any

import torch

from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings


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


MOMENTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
ADAM = Kind(adam, MOMENTS)
ADAMW = Kind(adamw, MOMENTS)
