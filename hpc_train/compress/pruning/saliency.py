"""The weights go that the loss depends on least, by what their gradients say while training."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hpc_train.compress.pruning.magnitude import smallest


class Saliency:
    """Zeroes the `amount` of all weights that cost least: w^2 times the mean square of gradients.

    The loss grows by about h w^2 / 2 where w becomes 0 and h is its curvature (LeCun et al.,
    "Optimal brain damage", NeurIPS 1989), for which the mean square of gradients stands.

    Args:
        weights: by name; read whenever masks are made.
        amount: in (0, 1).
    """

    wants_gradients = True

    def __init__(self, weights: Mapping[str, torch.Tensor], amount: float) -> None:
        self.names = tuple(weights)
        self._weights = weights
        self._amount = amount

    def masks(
        self, masks: Mapping[str, torch.Tensor], squares: Mapping[str, torch.Tensor], part: float
    ) -> dict[str, torch.Tensor]:
        """See `Pruner`."""
        scores = {n: weights.square() * squares[n] for n, weights in self._weights.items()}
        return smallest(scores, masks, self._amount * part)
