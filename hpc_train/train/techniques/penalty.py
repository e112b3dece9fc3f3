"""L1 and L2 penalties on weight matrices, together the elastic net."""

from __future__ import annotations

import torch

from hpc_train.config import Config
from hpc_train.strategies import Learner, Tally
from hpc_train.train.technique import Technique


class Penalty(Technique):
    """Adds l1 * sum |w| + l2 / 2 * sum w^2 to the mean loss, over weights of two axes or more.

    Zou and Hastie, "Regularization and variable selection via the elastic net", JRSS B 2005,
    equation 3. Biases and the scales of norms have one axis, and are left alone. Only the gradient
    is told: losses are reported without the penalty.

    Args:
        l1, l2: >= 0.
    """

    name = "penalty"

    def __init__(self, l1: float, l2: float) -> None:
        self._l1, self._l2 = l1, l2

    def gradients(self, learner: Learner, tally: Tally) -> None:
        """l1 * sign(w) + l2 * w, in proportion to this rank's part of the batch's weight."""
        with torch.no_grad():
            for arena in learner.arenas:
                for name, shape in arena.trained():
                    if len(shape) < 2:
                        continue
                    weights, grad = arena.view(arena.data, name), arena.view(arena.grad, name)
                    if self._l1:
                        grad.add_(weights.sign(), alpha=self._l1 * tally.weight)
                    if self._l2:
                        grad.add_(weights, alpha=self._l2 * tally.weight)


def make(config: Config) -> Technique | None:
    """The technique, if one of the two is above 0."""
    section = config.regularization
    return Penalty(section.l1, section.l2) if section.l1 or section.l2 else None
