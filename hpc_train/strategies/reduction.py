"""How the gradients of a learner become sums over all ranks: plain, or compressed.

    begin      backward      reduce                agree     commit
                             arenas are summed               what compression left out is kept

What compression leaves out belongs to a step that counts: without `commit` the sum never was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from hpc_train.comm import Comm, CompressedSum, Matrix, Terms, compressed, prepare
from hpc_train.comm.compression.cost import decide
from hpc_train.strategies.arena import Arena
from hpc_train.strategies.learner import Learner

logger = logging.getLogger(__name__)

_RESIDUAL = "residual/"
_BASIS = "basis/"


class Reduction(Protocol):
    """Sums the gradients of one learner over all ranks."""

    def reduce(self, samples: int) -> None:
        """Sum them in place, for a batch of so many samples, on all ranks together."""

    def commit(self) -> None:
        """The step of the last sum counts."""

    def settle(self) -> None:
        """Get what belongs to a checkpoint; collective."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What belongs to a checkpoint, by name; the same on all ranks when settled."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `tensors` told, on every rank."""

    def heir(self, comm: Comm) -> Reduction:
        """The same for other ranks, those that are left of these; collective among them."""


class Plain:
    """Sums that are exact.

    Args:
        comm: the ranks.
        learner: whose gradients.
        collective: how ranks sum.
    """

    def __init__(self, comm: Comm, learner: Learner, collective: str) -> None:
        self._learner = learner
        self._collective = collective
        self._operations = [prepare(collective, comm, arena.grad) for arena in learner.arenas]

    def reduce(self, samples: int) -> None:
        """Sum all arenas."""
        for operation in self._operations:
            operation.launch()
        for operation in self._operations:
            operation.finish()

    def commit(self) -> None:
        """Nothing was left out."""

    def settle(self) -> None:
        """Nothing is to be kept."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Tell of what a compressed run had left to be sent, and is not taken up."""
        owed = [t for name, t in tensors.items() if name.startswith(_RESIDUAL)]
        if any(bool(tensor.any()) for tensor in owed):
            logger.warning(
                "comm.gradient_compression is off: what it had not sent yet is dropped (phase %s)",
                self._learner.name,
            )

    def heir(self, comm: Comm) -> Plain:
        """The same for the ranks that are left."""
        return Plain(comm, self._learner, self._collective)


class Compressed:
    """Sums of which a part travels; the residuals of all ranks are saved as their sum.

    Args:
        comm: the ranks.
        learner: whose gradients.
        terms: how to compress.
    """

    def __init__(self, comm: Comm, learner: Learner, terms: Terms) -> None:
        self._comm = comm
        self._world = comm.world
        self._learner = learner
        self._terms = terms
        self._sums = [
            compressed(comm, arena.grad, matrices_of(arena), terms) for arena in learner.arenas
        ]
        # on the CPU, shape as the arena's: what all ranks owed together when last settled
        self._owed = [torch.zeros_like(arena.grad, device="cpu") for arena in learner.arenas]
        self._bases: dict[str, torch.Tensor] = {}
        self._is_behind = False  # whether this rank did not hear the end of the last step
        self._num_lost = len(comm.lost)
        self.settle()

    def reduce(self, samples: int) -> None:
        """Sum all arenas, with what was left out of earlier sums."""
        for one in self._sums:
            one.set_batch_size(max(1, samples))
            one.launch()
        for one in self._sums:
            one.finish()

    def commit(self) -> None:
        """What was left out of the last sums is added to the next ones."""
        for one in self._sums:
            one.commit()

    def settle(self) -> None:
        """Add up what all ranks owe, parameter by parameter."""
        for arena, one, owed in zip(self._learner.arenas, self._sums, self._owed, strict=True):
            owed.zero_()
            one.owed(owed)
            for name in arena.places:
                view = arena.view(owed, name)
                view.copy_(torch.from_numpy(self._comm.sum(view.numpy())))
            self._settle_bases(arena, one)

    def _settle_bases(self, arena: Arena, one: CompressedSum) -> None:
        """Tell all ranks what compressors learned: each thing by the first rank that knows it."""
        mine = one.tensors()
        names = {start: name for name, (start, _) in arena.places.items()}
        told = self._comm.gather(
            [[self._is_behind, start, *base.shape] for start, base in mine.items()]
        )
        known = [(rank, *known) for rank, some in enumerate(told) for known in some]
        owners: dict[int, tuple[int, list[int]]] = {}
        for rank, _, start, *shape in sorted(known, key=lambda one: one[1], reverse=True):
            owners[start] = (rank, shape)
        for start, (rank, shape) in sorted(owners.items()):
            own = mine[start].numpy() if rank == self._comm.world.rank else np.zeros(shape)
            total = torch.from_numpy(self._comm.sum(own)).to(arena.grad.dtype)
            self._bases.setdefault(names[start], torch.empty_like(total)).copy_(total)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What all ranks owed when they last settled, and what compressors had learned."""
        found = {
            f"{_RESIDUAL}{name}": arena.view(owed, name)
            for arena, owed in zip(self._learner.arenas, self._owed, strict=True)
            for name in arena.places
        }
        return found | {f"{_BASIS}{name}": base for name, base in self._bases.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what is told; what is missing is zero.

        A rank that is given the state of another, since it did not hear the end of a step before
        ranks were lost, owes nothing: what it owed was a part of that step.
        """
        self._is_behind = self._comm.world is not self._world
        self._take_bases(tensors)
        for arena, one, owed in zip(self._learner.arenas, self._sums, self._owed, strict=True):
            owed.zero_()
            for name in arena.places:
                if f"{_RESIDUAL}{name}" in tensors:
                    arena.view(owed, name).copy_(tensors[f"{_RESIDUAL}{name}"])
            one.take(None if self._is_behind else owed)

    def _take_bases(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for arena, one in zip(self._learner.arenas, self._sums, strict=True):
            known = {
                start: tensors[f"{_BASIS}{name}"]
                for name, (start, _) in arena.places.items()
                if f"{_BASIS}{name}" in tensors
            }
            one.restore(known)
            for name, (start, _) in arena.places.items():
                if start in known:
                    self._bases[name] = known[start].clone()

    def heir(self, comm: Comm) -> Compressed:
        """The same for the ranks that are left; what the lost ones owed is dropped."""
        lost = comm.lost[self._num_lost :]
        if comm.world.is_coordinator and lost:
            logger.warning(
                "what gradient compression had not sent yet of %s is dropped",
                " and ".join(map(str, lost)),
            )
        self.settle()
        made = Compressed(comm, self._learner, self._terms)
        made.restore(self.tensors())
        return made


def matrices_of(arena: Arena) -> list[Matrix]:
    """The parameters of an arena as matrices, in order."""
    return [
        Matrix(
            start, (shape[0], shape.numel() // shape[0]) if len(shape) > 1 else (1, shape.numel())
        )
        for start, shape in sorted(arena.places.values(), key=lambda place: place[0])
        if shape.numel()
    ]


def make_reductions(
    comm: Comm, learners: Sequence[Learner], collective: str, terms: Terms
) -> dict[str, Reduction]:
    """How the gradients of each learner are summed, by its name; collective.

    Raises:
        UsageError: on every rank, if there is no such collective or compression.
    """
    name = _decided(comm, learners, terms) if terms.name == "auto" else terms.name
    if name == "none":
        return {one.name: Plain(comm, one, collective) for one in learners}
    return {one.name: Compressed(comm, one, replace(terms, name=name)) for one in learners}


def _decided(comm: Comm, learners: Sequence[Learner], terms: Terms) -> str:
    """The compression that pays here, told with its reason."""
    arenas = [arena for learner in learners for arena in learner.arenas]
    sizes = [arena.grad.numel() for arena in arenas]
    verdict = decide(comm, sizes, [matrices_of(arena) for arena in arenas], terms)
    if comm.world.is_coordinator:
        logger.info("comm.gradient_compression auto: %s (%s)", verdict.name, verdict.reason)
    return verdict.name
