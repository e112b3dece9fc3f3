"""Adam, with weight decay of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hpc_train.optim.optimizers.eager import eager
from hpc_train.optim.optimizers.kind import Kernel, Kind, Parameters, Settings


def adam(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Adam with L2 weight decay (Kingma and Ba, ICLR 2015)."""
    return eager(torch.optim.Adam)(parameters, **_moments(settings))


def adamw(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""
    return eager(torch.optim.AdamW)(parameters, **_moments(settings))


def _moments(settings: Settings) -> dict[str, Any]:
    """What both kinds of Adam are told."""
    return {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
        "fused": True,
    }


def _kernel(fused: Callable[..., None]) -> Kernel:
    """The same for a part of the weights, by one of torch's fused kernels."""

    def update(
        weight: torch.Tensor,
        grad: torch.Tensor,
        state: Mapping[str, torch.Tensor],
        group: Mapping[str, Any],
    ) -> None:
        """Update a part in place: weight, grad and moments of shape (n,); `grad` may be changed."""
        first, second = group["betas"]
        fused(
            [weight],
            [grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=group["lr"],
            beta1=first,
            beta2=second,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    return update


MOMENTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
ADAM = Kind(adam, MOMENTS, kernel=_kernel(torch._fused_adam_))
ADAMW = Kind(adamw, MOMENTS, kernel=_kernel(torch._fused_adamw_))
