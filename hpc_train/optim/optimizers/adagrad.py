"""Adagrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hpc_train.optim.optimizers.eager import eager
from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings


def adagrad(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Gradients over the root of the sum of all earlier squares, with L2 weight decay.

    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12, 2011.
    """
    return eager(torch.optim.Adagrad)(
        parameters,
        lr=settings.lr,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def _update(
    weight: torch.Tensor,
    grad: torch.Tensor,
    state: Mapping[str, torch.Tensor],
    group: Mapping[str, Any],
) -> None:
    """The same for a part of the weights."""
    grad.add_(weight, alpha=group["weight_decay"])
    state["sum"].addcmul_(grad, grad)
    weight.addcdiv_(grad, state["sum"].sqrt().add_(group["eps"]), value=-group["lr"])


ADAGRAD = Kind(adagrad, frozenset({"step", "sum"}), kernel=_update)
