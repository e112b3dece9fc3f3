"""Learning-rate curves: pure functions of the global batch, as a factor on the base rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hpc_train.errors import UsageError, unknown


def constant(progress: float, final_factor: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float, final_factor: float) -> float:
    """Half a cosine from 1 down to `final_factor` (Loshchilov and Hutter, SGDR, ICLR 2017)."""
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


# name -> factor at `progress` in [0, 1] of the batches after the warm-up
CURVES: dict[str, Callable[[float, float], float]] = {"constant": constant, "cosine": cosine}


@dataclass(frozen=True)
class LearningRate:
    """The factor of a run's learning rate at each global batch.

    Args:
        name: a curve in `CURVES`.
        num_batches: global batches of the whole run, >= 1.
        warmup: batches of linear rise before the curve begins, >= 0; batch t of it gets
            (t + 1) / (warmup + 1).
        final_factor: where a falling curve ends, in [0, 1].
    """

    name: str
    num_batches: int
    warmup: int = 0
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in CURVES:
            raise UsageError(unknown("learning rate", self.name, CURVES))

    def factor(self, batch: int) -> float:
        """The factor at global batch `batch`, counted from 0."""
        if batch < self.warmup:
            return (batch + 1) / (self.warmup + 1)
        length = max(1, self.num_batches - self.warmup)
        progress = min(1.0, (batch - self.warmup) / length)
        return CURVES[self.name](progress, self.final_factor)
