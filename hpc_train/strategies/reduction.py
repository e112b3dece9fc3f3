"""How the gradients of a learner become sums over all ranks: plain, or compressed.

    begin      backward      reduce                agree     commit
                             arenas are summed               what compression left out is kept

What compression leaves out belongs to a step that counts: without `commit` the sum never was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from hpc_train.comm import Comm, CompressedSum, Matrix, Operation, Terms, compressed, prepare
from hpc_train.strategies.arena import Arena
from hpc_train.strategies.buckets import BUCKET_BYTES, SMALL_BYTES, cut
from hpc_train.strategies.learner import Learner

logger = logging.getLogger(__name__)

_RESIDUAL = "residual/"
_BASIS = "basis/"


@dataclass(frozen=True)
class Part:
    """A slice of an arena that is summed by one operation.

    Attributes:
        place: which one.
        names: the parameters in it.
    """

    arena: Arena
    place: slice
    names: tuple[str, ...]
    operation: Operation


@dataclass(frozen=True)
class Debts:
    """What one rank knows of compressed sums, by the names of parameters.

    Attributes:
        owed: what it has not sent yet, for a batch of one sample, in the parameter's shape.
        learned: what compressors learned.
        is_behind: whether it did not hear the end of the last step.
        num_lost: how many ranks of the job had been lost when it began.
    """

    owed: Mapping[str, torch.Tensor] = field(default_factory=dict)
    learned: Mapping[str, torch.Tensor] = field(default_factory=dict)
    is_behind: bool = True
    num_lost: int = 0


class Reduction(Protocol):
    """Sums the gradients of one learner over all ranks."""

    @property
    def parts(self) -> list[Part]:
        """What is summed; together all of the gradients."""

    def begin(self, samples: int) -> None:
        """Get ready for the gradients of a batch of so many samples, on all ranks together."""

    def begin_again(self) -> None:
        """Forget the gradients since `begin`.

        Raises:
            HpcTrainError: if some of them have gone out.
        """

    def release(self) -> None:
        """The next backward pass is the last one of this step: its gradients are final."""

    def reduce(self) -> None:
        """Sum them in place; collective."""

    def commit(self) -> None:
        """The step of the last sum counts."""

    def settle(self) -> None:
        """Get what belongs to a checkpoint; collective."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What belongs to a checkpoint, by name; the same on all ranks when settled."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `tensors` told, on every rank."""

    def debts(self) -> Debts:
        """What this rank would have to tell those who go on with other ranks."""

    def inherit(self, debts: Debts) -> None:
        """Take up what each rank knew of a reduction by other ranks before; collective."""

    def close(self) -> None:
        """Let go of whatever waits for gradients."""


class Plain:
    """Sums that are exact.

    Args:
        line: the ranks, with communicators for sums.
        learner: whose gradients.
        collective: how ranks sum.
        in_buckets: whether to sum an arena in several parts.
    """

    def __init__(
        self, line: Comm, learner: Learner, collective: str, *, in_buckets: bool = False
    ) -> None:
        self._learner = learner
        self.parts = [
            Part(arena, place, names, prepare(collective, line, arena.grad[place]))
            for arena, place, names in _slices(learner, in_buckets=in_buckets)
        ]

    def begin(self, samples: int) -> None:
        """Nothing to get ready."""

    def begin_again(self) -> None:
        """Nothing has gone out."""

    def release(self) -> None:
        """Nothing is summed before all is there."""

    def reduce(self) -> None:
        """Sum all parts."""
        for part in self.parts:
            part.operation.launch()
        for part in self.parts:
            part.operation.finish()

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

    def debts(self) -> Debts:
        """None."""
        return Debts()

    def inherit(self, debts: Debts) -> None:
        """Nothing to take up: who sums exactly follows one that did."""

    def close(self) -> None:
        """Nothing waits."""


class Compressed:
    """Sums of which a part travels; the residuals of all ranks are saved as their sum.

    Args:
        comm: the ranks.
        line: the same ranks, with communicators for sums.
        learner: whose gradients.
        terms: how to compress.
        in_buckets: whether to sum an arena in several parts.
    """

    def __init__(
        self, comm: Comm, line: Comm, learner: Learner, terms: Terms, *, in_buckets: bool = False
    ) -> None:
        self._comm = comm
        self._world = comm.world
        self._learner = learner
        self.parts: list[Part] = []
        # with what all ranks owed together when last settled, on the CPU, shape as the part's
        self._sums: list[tuple[Part, CompressedSum, torch.Tensor]] = []
        for arena, place, names in _slices(learner, in_buckets=in_buckets):
            values = arena.grad[place]
            one = compressed(line, values, matrices_of(arena, place), terms)
            part = Part(arena, place, names, one)
            self.parts.append(part)
            self._sums.append((part, one, torch.zeros_like(values, device="cpu")))
        self._bases: dict[str, torch.Tensor] = {}
        self._is_behind = False  # whether this rank did not hear the end of the last step
        self._num_lost = len(comm.lost)

    def begin(self, samples: int) -> None:
        """Get ready for a batch of so many samples."""
        for _, one, _ in self._sums:
            one.set_batch_size(max(1, samples))

    def begin_again(self) -> None:
        """Nothing has gone out."""

    def release(self) -> None:
        """Nothing is summed before all is there."""

    def reduce(self) -> None:
        """Sum all parts, with what was left out of earlier sums."""
        for part in self.parts:
            part.operation.launch()
        for part in self.parts:
            part.operation.finish()

    def commit(self) -> None:
        """What was left out of the last sums is added to the next ones."""
        for _, one, _ in self._sums:
            one.commit()

    def settle(self) -> None:
        """Add up what all ranks owe."""
        self._add_up(self.debts())

    def debts(self) -> Debts:
        """What this rank owes, and what the compressors of its parts learned."""
        owed: dict[str, torch.Tensor] = {}
        learned: dict[str, torch.Tensor] = {}
        for part, one, like in self._sums:
            flat = torch.zeros_like(like)
            one.owed(flat)
            owed |= _views(part, flat)
            names = {part.arena.places[name][0] - part.place.start: name for name in part.names}
            learned |= {names[start]: base for start, base in one.tensors().items()}
        return Debts(owed, learned, self._is_behind, self._num_lost)

    def _add_up(self, debts: Debts) -> None:
        """What all ranks owe, parameter by parameter, and what any of them has learned."""
        for part, _, owed in self._sums:
            for name, view in _views(part, owed).items():
                own = debts.owed[name].numpy() if name in debts.owed else np.zeros(view.shape)
                view.copy_(torch.from_numpy(self._comm.sum(own)))
        told = self._comm.gather(
            [[debts.is_behind, name, *base.shape] for name, base in debts.learned.items()]
        )
        known = [(one[0], rank, one[1], one[2:]) for rank, some in enumerate(told) for one in some]
        # each thing by the first rank that knows it, of those that heard the end of the last step
        owners: dict[str, tuple[int, list[int]]] = {}
        for _, rank, name, shape in sorted(known, reverse=True):
            owners[name] = (rank, shape)
        kind = self.parts[0].arena.grad.dtype
        for name, (rank, shape) in sorted(owners.items()):
            mine = rank == self._comm.world.rank
            own = debts.learned[name].numpy() if mine else np.zeros(shape)
            total = torch.from_numpy(self._comm.sum(own)).to(kind)
            self._bases.setdefault(name, torch.empty_like(total)).copy_(total)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What all ranks owed when they last settled, and what compressors had learned."""
        found = {
            f"{_RESIDUAL}{name}": view
            for part, _, owed in self._sums
            for name, view in _views(part, owed).items()
        }
        return found | {f"{_BASIS}{name}": base for name, base in self._bases.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what is told; what is missing is zero.

        A rank that is given the state of another, since it did not hear the end of a step before
        ranks were lost, owes nothing: what it owed was a part of that step.
        """
        self._is_behind = self._comm.world is not self._world
        for part, one, owed in self._sums:
            self._take_bases(part, one, tensors)
            owed.zero_()
            for name, view in _views(part, owed).items():
                if f"{_RESIDUAL}{name}" in tensors:
                    view.copy_(tensors[f"{_RESIDUAL}{name}"])
            one.take(None if self._is_behind else owed)

    def _take_bases(
        self, part: Part, one: CompressedSum, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        known = {n: tensors[f"{_BASIS}{n}"] for n in part.names if f"{_BASIS}{n}" in tensors}
        start = part.place.start
        one.restore({part.arena.places[name][0] - start: base for name, base in known.items()})
        self._bases |= {name: base.clone() for name, base in known.items()}

    def inherit(self, debts: Debts) -> None:
        """Take up what is left; what lost ranks owed is dropped."""
        lost = self._comm.lost[debts.num_lost :]
        if self._comm.world.is_coordinator and lost:
            logger.warning(
                "what gradient compression had not sent yet of %s is dropped",
                " and ".join(map(str, lost)),
            )
        self._add_up(debts)
        self.restore(self.tensors())

    def close(self) -> None:
        """Nothing waits."""


def _views(part: Part, flat: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parameters of a part in a tensor of the part's shape, by name."""
    found = {}
    for name in part.names:
        start, shape = part.arena.places[name]
        start -= part.place.start
        found[name] = flat[start : start + shape.numel()].view(shape)
    return found


def _slices(learner: Learner, *, in_buckets: bool) -> list[tuple[Arena, slice, tuple[str, ...]]]:
    """All arenas whole, or in buckets, with the names of the parameters in each."""
    if not in_buckets:
        return [(a, slice(0, a.grad.numel()), tuple(a.places)) for a in learner.arenas]
    found = []
    for arena in learner.arenas:
        starts = [(name, start) for name, (start, _) in arena.places.items()]
        item = arena.grad.element_size()
        size = arena.grad.numel()
        for bucket in cut(starts, size, BUCKET_BYTES // item, SMALL_BYTES // item):
            found.append((arena, slice(bucket.start, bucket.stop), bucket.names))
    return found


def matrices_of(arena: Arena, place: slice) -> list[Matrix]:
    """The parameters of an arena in `place` as matrices, in order, counted from its beginning."""
    inside = [p for p in arena.places.values() if place.start <= p[0] < place.stop]
    return [
        Matrix(
            start - place.start,
            (shape[0], shape.numel() // shape[0]) if len(shape) > 1 else (1, shape.numel()),
        )
        for start, shape in sorted(inside, key=lambda one: one[0])
        if shape.numel()
    ]
