"""Adagrad."""

from __future__ import annotations

import torch

from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings


def adagrad(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Gradients over the root of the sum of all earlier squares, with L2 weight decay.

    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12, 2011.
    """
    return torch.optim.Adagrad(
        parameters,
        lr=settings.lr,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


ADAGRAD = Kind(adagrad, frozenset({"step", "sum"}))
