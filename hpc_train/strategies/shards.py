"""The update of one learner, cut among the ranks of a node; parameters and state lie there once.

               slice 0     slice 1     slice 2
    grad 0     sum         sum         sum         1 reduce  slice r by rank r, a block at a time:
    grad 1     x           x           x                     g0 += g1, g0 += g2, and its squares
    grad 2     x           x           x           2 agree   on norm and flags: the commit point
    weights    update      update      update      3 update  slice r by rank r, a block at a time,
    state      update      update      update                from grad 0, which stays as it is
               rank 0      rank 1      rank 2

Slices are as long as the plan's shares; 1 is a sum that lies once in the node (`comm.sum_once`).
Where the gradients do not lie in one shared memory (several nodes, another collective), they are
sums before, 1 only takes the squares, and 3 reads the rank's own gradient.

Block by block: the next block is read from memory while this one is in the cache, with all that is
kept of it; the journal saves each block there before it is overwritten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.comm import Comm, SumOnce, sum_once
from hpc_train.comm.arithmetic import field, scale_for
from hpc_train.comm.cut import blocks
from hpc_train.strategies.arena import Arena, Once, Piece
from hpc_train.strategies.journal import Copies, Journal
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.reduction import Plain

# all that belongs to a block; measured with 1 MiB of second-level cache per core and 32 MiB behind
# it: what does not fit into the former costs less than more calls for shorter blocks
_CACHE_BYTES = 2 * 2**20
_STEP_BYTES = 16 * 2**10  # blocks are so many times so long


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a slice.

    Attributes:
        piece: where it belongs.
        weight: shape (n,).
        scaled: memory for the gradient that the optimizer gets, shape (n,).
        scale: sets it to a multiple of the gradient.
        state: what the optimizer keeps of it, shape (n,), and "step".
        group: how the optimizer treats it.
        saved: what the update overwrites in shared memory.
        copies: where the journal keeps that; none without a journal.
    """

    piece: Piece
    weight: torch.Tensor
    scaled: torch.Tensor
    scale: Callable[[float], Any]
    state: Mapping[str, torch.Tensor]
    group: Mapping[str, Any]
    saved: tuple[torch.Tensor, ...]
    copies: Copies


class Sliced(Plain):
    """Sums that `Shards` makes; here nothing is left to be done."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.parts = []


class Shards:
    """The slices of one learner.

    Args:
        learner: its optimizer has a kernel.
        comm: the ranks.
        journal: where this rank tells how far it is; None to do without.
        sums: whether gradients shall be summed by slices, too, where they can be.

    Attributes:
        sums: whether they are; else they are sums before `reduce`.
    """

    def __init__(
        self, learner: Learner, comm: Comm, journal: Journal | None, *, sums: bool
    ) -> None:
        self._learner, self._comm, self._journal = learner, comm, journal
        self._wants_sums = sums
        self._squares = 0.0  # of this rank's slices
        self._counted = 0  # the update that the optimizer's steps have counted
        self._groups = {
            id(flat): group for group in learner.optimizer.param_groups for flat in group["params"]
        }
        self._block_bytes = _block_bytes(learner, saved=journal is not None)

    def regroup(self) -> None:
        """Make anew what depends on who the ranks are, and where gradients lie; collective."""
        gradients = [arena.grad for arena in self._learner.arenas]
        found = sum_once(self._comm, gradients, self._look) if self._wants_sums else None
        self.sums = found is not None
        self._sum = found or self._own()
        self._shares: tuple[int, ...] = ()
        self._counted = 0

    def forgo_sums(self) -> None:
        """Let gradients be summed elsewhere, before `reduce`."""
        self._sum, self.sums = self._own(), False

    def _own(self) -> SumOnce:
        """What looks at the rank's own gradients, which are sums."""
        own = [[arena.grad] for arena in self._learner.arenas]
        return SumOnce(self._comm.node, own, self._look)

    def _look(self, block: torch.Tensor) -> None:
        self._squares += squares(block)

    def cut(self, shares: tuple[int, ...]) -> None:
        """Let the slice of each rank of the job be as long as its part of the sum of `shares`."""
        if shares != self._shares:
            self._cut(shares)

    def reduce(self, *, assembled: bool = False) -> float:
        """Sum the gradients of all ranks, this one its slice, if that is to be done here.

        Args:
            assembled: whether all gradients are there; else ranks wait for each other.

        Returns:
            This rank's part of the sum of squares of the gradient.
        """
        self._squares = 0.0
        self._sum.launch(assembled=assembled)
        # every node has all of the sum
        return self._squares if self._comm.world.node == 0 else 0.0

    def update(self, factor: float, number: int) -> None:
        """Update this rank's slice with `factor` times the gradient; update `number`."""
        self._count(number)
        self._make(self._blocks, factor, self._journal.rank if self._journal else 0)

    def complete(self, factor: float, number: int, vector: NDArray[np.float64]) -> None:
        """Make what ranks have left undone of update `number`, which began with `vector`."""
        assert self._journal is not None
        self._count(number)
        for rank, slot in enumerate(self._journal.slots):
            mine = self._blocks_of(rank)
            if slot.update != number:
                slot.begin(number, vector)
            if slot.done < len(mine):
                slot.restore(mine[slot.done].saved)
                self._make(mine, factor, rank)

    def _make(self, all_blocks: Sequence[Block], factor: float, rank: int) -> None:
        """The update of a slice, from the first block on that is not done."""
        kernel, slot = self._learner.kind.kernel, None
        assert kernel is not None
        if self._journal is not None:
            slot = self._journal.slots[rank]
            all_blocks = all_blocks[slot.done :]
        with torch.no_grad():
            for block in all_blocks:
                is_open = block.piece.flat.grad is not None
                if slot is not None and is_open:
                    slot.save(block.copies)
                if is_open:
                    block.scale(factor)
                    kernel(block.weight, block.scaled, block.state, block.group)
                if slot is not None:
                    slot.close()

    def _count(self, number: int) -> None:
        """Let the optimizer's steps count update `number`, once."""
        if self._counted == number:
            return
        self._counted = number
        for _, piece in self._learner.pieces:
            if piece.flat.grad is not None and "step" in self._learner.kind.state:
                self._learner.optimizer.state[piece.flat]["step"] += 1

    def _cut(self, shares: tuple[int, ...]) -> None:
        """New slices, and all that is done with this rank's."""
        node = self._comm.node
        here = [
            share
            for share, home in zip(shares, self._comm.world.nodes, strict=True)
            if home == self._comm.world.node
        ]
        weights = here if sum(here) else [1] * node.size
        self._shares = shares
        self._sum.cut(weights)
        longest = self._block_bytes // min(a.data.element_size() for a in self._learner.arenas)
        self._scaled = {
            dtype: torch.empty(longest, dtype=dtype)
            for dtype in {arena.data.dtype for arena in self._learner.arenas}
        }
        self._blocks = self._blocks_of(node.rank)

    def _blocks_of(self, rank: int) -> list[Block]:
        """The blocks of the slice of a rank of the node."""
        found = []
        for place, arena in enumerate(self._learner.arenas):
            mine = self._sum.slices[place][rank]
            length = self._block_bytes // arena.data.element_size()
            grad = self._sum.totals[place]
            for piece in arena.pieces:
                start, stop = max(mine.start, piece.start), min(mine.stop, piece.stop)
                for at in blocks(slice(start, stop), length):
                    found.append(self._block(arena, piece, grad, at, rank))
        return found

    def _block(self, arena: Arena, piece: Piece, grad: torch.Tensor, at: slice, rank: int) -> Block:
        state = self._learner.optimizer.state[piece.flat]
        inside = slice(at.start - piece.start, at.stop - piece.start)
        own = {what: state[what][inside] for what in self._learner.kept()}
        weight = arena.data[at]
        saved = (weight, *own.values())
        if "step" in state:
            own["step"] = state["step"]
        scaled = self._scaled[weight.dtype][: at.stop - at.start]
        scale, given, out = scale_for(weight.dtype), field(grad[at]), field(scaled)
        return Block(
            piece,
            weight,
            scaled,
            lambda factor: scale(given, factor, out),
            own,
            self._groups[id(piece.flat)],
            saved,
            self._journal.slots[rank].copies(saved) if self._journal else (),
        )


def _block_bytes(learner: Learner, *, saved: bool) -> int:
    """How long a block is, so that all that belongs to it fits into the cache."""
    arrays = 2 + (1 + len(learner.kept())) * (2 if saved else 1)
    return max(_STEP_BYTES, _CACHE_BYTES // arrays // _STEP_BYTES * _STEP_BYTES)


def saved_bytes(learner: Learner) -> int:
    """The most that a journal saves of a block."""
    return _block_bytes(learner, saved=True) * (1 + len(learner.kept()))


def squares(block: torch.Tensor) -> float:
    """The sum of squares of a tensor of shape (n,); not finite if any element is not."""
    found = float(torch.dot(block, block))
    if math.isfinite(found):
        return found
    exact = block.double()  # large numbers have squares that are not finite in single precision
    return float(torch.dot(exact, exact))


# of each arena: memory for its values, and for each thing that the optimizer keeps of them
Memory = list[list[torch.Tensor]]


def memory_for(learner: Learner, comm: Comm) -> Memory | None:
    """Memory that the ranks of each node have in common; collective.

    None on all ranks, if there is not enough of it.
    """
    found: Memory = []
    for arena in learner.arenas:
        raw = [comm.node.common(arena.data.nbytes) for _ in ("weights", *learner.kept())]
        lent = [torch.from_numpy(one).view(arena.data.dtype) for one in raw if one is not None]
        if not all(comm.gather(len(lent) == len(raw))):
            return None
        found.append(lent)
    return found


def settle_in(learner: Learner, memory: Memory, once: Once) -> None:
    """Let parameters and optimizer state lie in `memory`; collective."""
    states = []
    for arena, (weights, *state) in zip(learner.arenas, memory, strict=True):
        arena.share(weights, once)
        for piece in arena.pieces:
            at = slice(piece.start, piece.stop)
            states.append({w: one[at] for w, one in zip(learner.kept(), state, strict=True)})
    learner.keep_in(states)
