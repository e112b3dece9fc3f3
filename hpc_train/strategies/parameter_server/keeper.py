"""What one of several servers holds: its slice of the weights, with the sums of gradients for it.

No MPI and no threads inside: who calls, sees to it that only one does at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hpc_train.strategies.arena import Piece
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.parameter_server.slicing import Share


@dataclass(frozen=True)
class Order:
    """What becomes of the sum of a batch, as rank 0 decides.

    Attributes:
        number: the batch.
        factor: the gradient is that times the sum; None to leave the weights as they are.
        rate: of the learning rate, as a part of the base rate.
    """

    number: int
    factor: float | None
    rate: float


@dataclass(frozen=True, eq=False)
class _Block:
    """What the optimizer updates at once: a part of one piece of one arena.

    Attributes:
        piece: where it belongs.
        arena: the number of the arena.
        at: where it lies in the slice of that.
        state: what the optimizer keeps of it, in its own memory.
    """

    piece: Piece
    arena: int
    at: slice
    state: Mapping[str, torch.Tensor]


class _Sum:
    """The gradients of an open batch so far."""

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self.grads = [torch.zeros_like(one, device="cpu") for one in weights]
        self.samples = 0


class Keeper:
    """Sums gradients for a slice, and updates it.

    Args:
        learner: its optimizer keeps the state of the slice here, with that of all other weights,
            which is not used; its arenas are left to the rank that works.
        share: the slice.

    Attributes:
        weights: the slice, of each arena.
        version: orders that were followed.
    """

    def __init__(self, learner: Learner, share: Share) -> None:
        self._learner = learner
        self.share = share
        self.weights = [
            arena.data[at].clone() for arena, at in zip(learner.arenas, share, strict=True)
        ]
        self.version = 0
        self._sums: dict[int, _Sum] = {}
        self._spare: list[_Sum] = []
        self._blocks: list[_Block] = []

    def begin(self) -> None:
        """Take up the weights and the optimizer's state that this rank has; forget open sums."""
        self._sums.clear()
        for mine, arena, at in zip(self.weights, self._learner.arenas, self.share, strict=True):
            mine.copy_(arena.data[at])
        self._learner.make_state()
        self._blocks = self._cut()

    def add(
        self, number: int, samples: int, num_samples: int, grads: Sequence[torch.Tensor]
    ) -> float | None:
        """Add the gradient of a range.

        Args:
            number: of the batch.
            samples: of the range, >= 1.
            num_samples: of the batch.
            grads: for the slice of each arena, on the CPU.

        Returns:
            The 2-norm of the sum, if all of the batch has come.
        """
        if number not in self._sums:
            self._sums[number] = self._spare.pop() if self._spare else _Sum(self.weights)
        held = self._sums[number]
        for mine, grad in zip(held.grads, grads, strict=True):
            mine.add_(grad)
        held.samples += samples
        return norm(held.grads) if held.samples == num_samples else None

    def follow(self, order: Order) -> None:
        """Update the slice with the sum of a batch, or leave it as it is."""
        held = self._sums.pop(order.number)
        if order.factor is not None:
            self._update(held.grads, order.factor, order.rate)
        for grad in held.grads:
            grad.zero_()
        held.samples = 0
        self._spare.append(held)
        self.version += 1

    @torch.no_grad()
    def _update(self, grads: Sequence[torch.Tensor], factor: float, rate: float) -> None:
        kernel = self._learner.kind.kernel
        assert kernel is not None, "the strategy has checked it"
        groups = self._learner.groups_at(rate)
        scaled = [
            grad.to(mine.device, copy=True).mul_(factor)
            for grad, mine in zip(grads, self.weights, strict=True)
        ]
        for block in self._blocks:
            if "step" in block.state:
                block.state["step"] += 1
            weight, grad = self.weights[block.arena][block.at], scaled[block.arena][block.at]
            kernel(weight, grad, block.state, groups[block.piece.flat])

    def _cut(self) -> list[_Block]:
        found = []
        for number, (arena, own) in enumerate(zip(self._learner.arenas, self.share, strict=True)):
            for piece, start, stop in overlaps(arena.pieces, own):
                at = slice(start - own.start, stop - own.start)
                state = self._learner.optimizer.state[piece.flat]
                inside = slice(start - piece.start, stop - piece.start)
                mine = {what: state[what][inside] for what in self._learner.kept()}
                if "step" in state:
                    mine["step"] = state["step"]
                found.append(_Block(piece, number, at, mine))
        return found


def overlaps(pieces: Sequence[Piece], own: slice) -> list[tuple[Piece, int, int]]:
    """The pieces that a slice of their arena touches, and where it does: start, stop."""
    found = [(piece, max(piece.start, own.start), min(piece.stop, own.stop)) for piece in pieces]
    return [(piece, start, stop) for piece, start, stop in found if start < stop]


def norm(grads: Sequence[torch.Tensor]) -> float:
    """The 2-norm of all elements; not finite if any of them is not."""
    found = torch.stack([torch.linalg.vector_norm(one, dtype=torch.float64) for one in grads])
    return float(torch.linalg.vector_norm(found))
