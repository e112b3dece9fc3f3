"""Stochastic gradient descent."""

from __future__ import annotations

import torch

from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings, momentum_buffer


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


SGD = Kind(sgd, frozenset(), momentum_buffer, frozenset({"momentum_buffer"}))
