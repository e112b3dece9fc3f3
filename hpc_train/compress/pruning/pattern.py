"""N of M: of each M neighbours in a row only the N largest stay, as sparse hardware wants it."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Pattern:
    """Of each `of` neighbours of a row (what leads into one unit), the `keep` largest stay.

    Mishra et al., "Accelerating sparse deep neural networks", 2021. On the way there, more stay.
    What is left at the end of a row is not pruned.

    Args:
        weights: by name; read whenever masks are made.
        keep, of: 1 <= keep < of.
    """

    wants_gradients = False

    def __init__(self, weights: Mapping[str, torch.Tensor], keep: int, of: int) -> None:
        fits = {n: w for n, w in weights.items() if w[0].numel() >= of}
        self.names = tuple(fits)
        self._weights = fits
        self._keep, self._of = keep, of

    def masks(
        self, masks: Mapping[str, torch.Tensor], squares: Mapping[str, torch.Tensor], part: float
    ) -> dict[str, torch.Tensor]:
        """See `Pruner`."""
        gone = int((self._of - self._keep) * part + 1e-9)
        return {n: self._mask(w.detach(), masks[n], gone) for n, w in self._weights.items()}

    def _mask(self, weights: torch.Tensor, before: torch.Tensor, gone: int) -> torch.Tensor:
        rows = weights.abs().masked_fill(~before, -1.0).reshape(len(weights), -1)
        width = rows.shape[1] - rows.shape[1] % self._of
        groups = rows[:, :width].reshape(-1, self._of)
        order = torch.argsort(groups, dim=1, stable=True)
        kept = torch.ones_like(groups, dtype=torch.bool).scatter_(1, order[:, :gone], False)
        mask = torch.ones_like(rows, dtype=torch.bool)
        mask[:, :width] = kept.reshape(len(rows), width)
        return mask.view(weights.shape) & before
