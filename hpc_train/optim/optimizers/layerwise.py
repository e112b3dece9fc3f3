"""What optimizers that treat every layer by itself share."""

from __future__ import annotations

from typing import Any

import torch


class Layerwise(torch.optim.Optimizer):
    """An optimizer whose parameters are one layer's weights or bias each.

    A group with `adapts = False` (norms and biases without decay) has no rates of its own.
    """

    def update(
        self, weight: torch.Tensor, grad: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Change one layer's `weight` in place."""
        raise TypeError(f"{type(self).__name__} must define update")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all layers."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, weight.grad, self.state[weight], group)


def norm_ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """above / below, scalars; 1 where one of them is 0. Does not wait for the device."""
    usable = (above > 0) & (below > 0)
    return torch.where(usable, above / torch.where(usable, below, 1.0), 1.0)
