"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hpc_train.optim.optimizers.eager import eager
from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings, momentum_buffer


def sgd(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with (Nesterov) momentum and L2 weight decay."""
    return eager(torch.optim.SGD)(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _update(
    weight: torch.Tensor,
    grad: torch.Tensor,
    state: Mapping[str, torch.Tensor],
    group: Mapping[str, Any],
) -> None:
    """The same for a part of the weights; momentum begins at 0, which makes no difference."""
    torch._fused_sgd_(
        [weight],
        [grad],
        list(state.values()),
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=0.0,
        nesterov=group["nesterov"],
        maximize=False,
        is_first_step=False,
    )


SGD = Kind(sgd, frozenset(), momentum_buffer, frozenset({"momentum_buffer"}), _update)
