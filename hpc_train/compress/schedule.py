"""When and how far a network is pruned: the cubic schedule, pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gradual:
    """Prunes fast while much can go, and slowly towards the end.

    amount(t) = final * (1 - (1 - (t - begin) / (end - begin))^3): Zhu and Gupta, "To prune, or not
    to prune", 2017, equation 1. After `end` the network is fine-tuned.

    Attributes:
        begin, end: the global batches after which pruning begins and ends, begin <= end.
        every: global batches from one pruning to the next, >= 1.
        final: what goes in the end, in (0, 1).
    """

    begin: int
    end: int
    every: int
    final: float

    def due(self, batch: int) -> int | None:
        """The last batch up to `batch` after which something is pruned; None before the first."""
        if batch < self.begin:
            return None
        if batch >= self.end:
            return self.end
        return batch - (batch - self.begin) % self.every

    def part(self, batch: int) -> float:
        """Which part of all pruning has been done after a batch, in [0, 1]."""
        if batch >= self.end:
            return 1.0
        if batch <= self.begin:
            return 0.0
        return float(1 - (1 - (batch - self.begin) / (self.end - self.begin)) ** 3)
