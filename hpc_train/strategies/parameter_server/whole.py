"""What a server does with sums of gradients: here, one that holds all weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from hpc_train.strategies.learner import Learner


class Weights(Protocol):
    """The weights as the server of ranges sees them: gradients in, updates out."""

    def add(self, number: int, grads: Sequence[torch.Tensor]) -> None:
        """Add a gradient of batch `number`: one tensor per arena, on the CPU."""

    def norm(self, number: int) -> float | None:
        """The 2-norm of the sum of batch `number`, all of which has come; None: not known yet."""

    def update(self, number: int, factor: float, rate: float) -> None:
        """Update with `factor` times that sum, after its `norm`, at `rate` times the base rate."""

    def drop(self, number: int) -> None:
        """Leave the weights as they are; the sum is of no use."""


class Whole:
    """All weights on this rank, in its arenas.

    Args:
        learner: whose weights they are; its optimizer makes the updates.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._sums: dict[int, list[torch.Tensor]] = {}
        self._spare: list[list[torch.Tensor]] = []

    def add(self, number: int, grads: Sequence[torch.Tensor]) -> None:
        """See `Weights`."""
        held = self._open(number)
        for mine, grad in zip(held, grads, strict=True):
            mine.add_(grad)

    def norm(self, number: int) -> float:
        """See `Weights`; gradients of the arenas are that sum from now on."""
        for arena, grad in zip(self._learner.arenas, self._open(number), strict=True):
            arena.grad.copy_(grad)
        return self._learner.norm()

    def update(self, number: int, factor: float, rate: float) -> None:
        """See `Weights`."""
        self._learner.set_rate(rate)
        self._learner.update(factor)
        self.drop(number)

    def drop(self, number: int) -> None:
        """See `Weights`."""
        held = self._sums.pop(number)
        for grad in held:
            grad.zero_()
        self._spare.append(held)

    def _open(self, number: int) -> list[torch.Tensor]:
        if number not in self._sums:
            self._sums[number] = self._spare.pop() if self._spare else self._new()
        return self._sums[number]

    def _new(self) -> list[torch.Tensor]:
        return [torch.zeros_like(arena.grad, device="cpu") for arena in self._learner.arenas]
