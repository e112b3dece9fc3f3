"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hpc_train.optim.optimizers.eager import eager
from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings, momentum_buffer


def rmsprop(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Gradients over their root mean square, with momentum and L2 weight decay.

    Tieleman and Hinton, "Neural networks for machine learning", lecture 6.5, 2012; centred as in
    Graves, "Generating sequences with recurrent neural networks", 2013.
    """
    return eager(torch.optim.RMSprop)(
        parameters,
        lr=settings.lr,
        alpha=settings.alpha,
        eps=settings.eps,
        momentum=settings.momentum,
        centered=settings.centered,
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
    square = state["square_avg"]
    square.mul_(group["alpha"]).addcmul_(grad, grad, value=1 - group["alpha"])
    if group["centered"]:
        mean = state["grad_avg"].lerp_(grad, 1 - group["alpha"])
        root = square.addcmul(mean, mean, value=-1).sqrt_().add_(group["eps"])
    else:
        root = square.sqrt().add_(group["eps"])
    if group["momentum"]:
        velocity = state["momentum_buffer"].mul_(group["momentum"]).addcdiv_(grad, root)
        weight.sub_(velocity, alpha=group["lr"])
    else:
        weight.addcdiv_(grad, root, value=-group["lr"])


def _options(settings: Settings) -> frozenset[str]:
    mean = frozenset({"grad_avg"} if settings.centered else ())
    return momentum_buffer(settings) | mean


RMSPROP = Kind(
    rmsprop,
    frozenset({"step", "square_avg"}),
    _options,
    frozenset({"momentum_buffer", "grad_avg"}),
    _update,
)
