"""Max-norm: the weights into each unit keep a norm of at most so much."""

from __future__ import annotations

import torch

from hpc_train.config import Config
from hpc_train.strategies import Arena, Learner
from hpc_train.train.technique import Technique


class MaxNorm(Technique):
    """After each update, rows of weights with a larger 2-norm are brought down to it.

    Srivastava et al., "Dropout", JMLR 2014, section 5.1. A row is what leads into one unit or
    output channel: all axes but the first. Biases are left alone.

    Args:
        largest: > 0.
    """

    name = "max_norm"

    def __init__(self, largest: float) -> None:
        self._largest = largest

    def updated(self, learner: Learner) -> None:
        """Shorten the rows that are too long."""
        for arena in learner.arenas:
            arena.write(lambda data, arena=arena: self._shorten(data, arena))  # type: ignore[misc]

    def _shorten(self, data: torch.Tensor, arena: Arena) -> None:
        for name, shape in arena.trained():
            if len(shape) >= 2:
                weights = arena.view(data, name)
                torch.renorm(weights, 2, 0, self._largest, out=weights)


def make(config: Config) -> Technique | None:
    """The technique, if the configuration gives a norm."""
    largest = config.regularization.max_norm
    return None if largest is None else MaxNorm(largest)
