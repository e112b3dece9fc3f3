"""LARS: SGD for large batches, with a rate of its own for each layer."""

from __future__ import annotations

from typing import Any

import torch

from hpc_train.optim.optimizers.eager import eager
from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings
from hpc_train.optim.optimizers.layerwise import Layerwise, norm_ratio


class Lars(Layerwise):
    """SGD with momentum whose rate is, for each layer, in proportion to its weights' norm.

        rate = lr trust |w| / (|g| + decay |w|)
        v = momentum v + rate (g + decay w)
        w = w - v

    You, Gitman and Ginsburg, "Large batch training of convolutional networks", 2017, algorithm 1;
    the rate is lr where one of the norms is 0, and for parameters that do not adapt.
    """

    def update(
        self, weight: torch.Tensor, grad: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """One step of one layer."""
        step = grad.add(weight, alpha=group["weight_decay"])
        if group.get("adapts", True):
            norm = weight.norm()
            below = grad.norm() + group["weight_decay"] * norm
            ratio = norm_ratio(norm * group["trust_coefficient"], below)
            step.mul_(ratio)
        step.mul_(group["lr"])
        if group["momentum"]:
            velocity = state.setdefault("velocity", torch.zeros_like(weight))
            step = velocity.mul_(group["momentum"]).add_(step)
        weight.sub_(step)


def lars(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Layer-wise adaptive rate scaling, see `Lars`."""
    defaults = {
        "lr": settings.lr,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
        "trust_coefficient": settings.trust_coefficient,
    }
    return eager(Lars)(parameters, defaults)


def _options(settings: Settings) -> frozenset[str]:
    return frozenset({"velocity"} if settings.momentum else ())


LARS = Kind(lars, frozenset(), _options, frozenset({"velocity"}), by_layer=True)
