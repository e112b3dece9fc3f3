"""The smallest weights go, whichever layer they are in."""

from __future__ import annotations

from collections.abc import Mapping

import torch

LEAST = 0.01  # of each layer's weights stay, so that none is cut through


def smallest(
    scores: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], amount: float
) -> dict[str, torch.Tensor]:
    """Masks without the `amount` of all weights that have the smallest scores.

    Args:
        scores: of each weight, >= 0.
        masks: those before; what is gone stays gone.
        amount: in [0, 1].

    Returns:
        As many weights as `amount` says, but for what layers keep at least; of equal scores the
        first goes.
    """
    ranked = []
    for name, score in scores.items():
        values = score.detach().double().masked_fill(~masks[name], -1.0).flatten()
        least = max(1, round(LEAST * values.numel()))
        ranked.append(values.index_fill(0, values.topk(least).indices, torch.inf))
    flat = torch.cat(ranked)
    gone = torch.argsort(flat, stable=True)[: round(amount * flat.numel())]
    kept = torch.ones(flat.shape, dtype=torch.bool, device=flat.device)
    kept[gone] = False
    kept |= torch.isinf(flat)
    kept &= torch.cat([masks[name].flatten() for name in scores])
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {n: p.view(s.shape) for (n, s), p in zip(scores.items(), parts, strict=True)}


class Magnitude:
    """Zeroes the `amount` of all weights with the smallest magnitudes.

    Han et al., "Learning both weights and connections", NeurIPS 2015.

    Args:
        weights: by name; read whenever masks are made.
        amount: in (0, 1).
    """

    wants_gradients = False

    def __init__(self, weights: Mapping[str, torch.Tensor], amount: float) -> None:
        self.names = tuple(weights)
        self._weights = weights
        self._amount = amount

    def masks(
        self, masks: Mapping[str, torch.Tensor], squares: Mapping[str, torch.Tensor], part: float
    ) -> dict[str, torch.Tensor]:
        """See `Pruner`."""
        scores = {name: weights.abs() for name, weights in self._weights.items()}
        return smallest(scores, masks, self._amount * part)
