"""LAMB: Adam for large batches, with a rate of its own for each layer."""

from __future__ import annotations

from typing import Any

import torch

from hpc_train.optim.optimizers.adam import MOMENTS
from hpc_train.optim.optimizers.eager import eager
from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings
from hpc_train.optim.optimizers.layerwise import Layerwise, norm_ratio


class Lamb(Layerwise):
    """Adam's step u (with decoupled weight decay), scaled for each layer to its weights' norm.

        m = b1 m + (1 - b1) g           v = b2 v + (1 - b2) g^2
        u = m' / (sqrt(v') + eps) + decay w         ' bias corrected, by 1 - b^t
        w = w - lr |w| / |u| u

    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR
    2020, algorithm 2, with phi(z) = z; the ratio is 1 where one of the norms is 0, and for
    parameters that do not adapt.
    """

    def update(
        self, weight: torch.Tensor, grad: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """One step of one layer."""
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        state["step"] += 1
        step, (first, second) = float(state["step"]), group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        root = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        update = (mean / (1 - first**step)).div_(root).add_(weight, alpha=group["weight_decay"])
        if group.get("adapts", True):
            update.mul_(norm_ratio(weight.norm(), update.norm()))
        weight.sub_(update, alpha=group["lr"])


def lamb(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Layer-wise adaptive moments, see `Lamb`."""
    defaults = {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    return eager(Lamb)(parameters, defaults)


LAMB = Kind(lamb, MOMENTS, by_layer=True)
