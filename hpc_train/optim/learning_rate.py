"""The learning rate of a run, as a pure function of the global batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hpc_train.errors import UsageError, unknown
from hpc_train.optim.curves import CURVES, Shape


def _linear(ratio: float) -> float:
    """In proportion (Goyal et al., "Accurate, large minibatch SGD", 2017)."""
    return ratio


# name -> factor on the learning rate, from the size of the global batch over the one it was made
# for; the root keeps the variance of an update (Krizhevsky, "One weird trick ...", 2014)
SCALES: dict[str, Callable[[float], float]] = {
    "none": lambda ratio: 1.0,
    "linear": _linear,
    "sqrt": math.sqrt,
}


@dataclass(frozen=True)
class LearningRate:
    """The factor of a run's learning rate at each global batch.

    Args:
        name: a curve in `CURVES`.
        num_batches: global batches of the whole run, >= 1.
        warmup: batches of linear rise before the curve begins, >= 0; batch t of it gets
            (t + 1) / (warmup + 1) of the curve's beginning.
        shape: what the curve is told besides; its length follows from the rest.
        scale: factor on all of it, > 0.
    """

    name: str
    num_batches: int
    warmup: int = 0
    shape: Shape = field(default_factory=lambda: Shape(1))
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in CURVES:
            raise UsageError(unknown("learning rate", self.name, CURVES))

    def factor(self, batch: int) -> float:
        """The factor at global batch `batch`, counted from 0."""
        curve = CURVES[self.name]
        shape = replace(self.shape, length=max(1, self.num_batches - self.warmup))
        if batch < self.warmup:
            return self.scale * curve(0, shape) * (batch + 1) / (self.warmup + 1)
        return self.scale * curve(batch - self.warmup, shape)


def batch_scale(name: str, batch_size: int, base_batch_size: int) -> float:
    """The factor on the learning rate for a global batch of `batch_size` samples.

    Args:
        name: a rule in `SCALES`.
        batch_size: samples of a global batch, >= 1.
        base_batch_size: those for which the learning rate was made, >= 1.
    """
    if name not in SCALES:
        raise UsageError(unknown("scaling of the learning rate", name, SCALES))
    return SCALES[name](batch_size / base_batch_size)
