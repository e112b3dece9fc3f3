"""Memory that runs short on purpose: what a device that is too small does, on any machine.

    oom:1>32            rank 1 has no memory for more than 32 samples at once
    oom:1>32@100-200    the same in batches 100 to 200
    oom:1@20            rank 1 has no memory for its next micro-batch in batch 20, once

A hook on the phases raises MemoryError as a "compute" phase begins whose micro-batches are too
large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpc_train.record import Hook, Leave

_PHASE = "compute"


@dataclass(frozen=True)
class Shortage:
    """When a rank has no memory.

    Attributes:
        rank: whom it befalls.
        most: samples that fit at once, >= 0.
        first, last: the batches in which it holds, both included; last is None for ever.
        once: whether it befalls the rank a single time.
    """

    rank: int
    most: int
    first: int = 0
    last: int | None = None
    once: bool = False

    def strikes(self, rank: int, batch: int, samples: int) -> bool:
        """Whether `rank` finds no memory for a micro-batch of so many samples."""
        late = self.last is not None and batch > self.last
        return rank == self.rank and samples > self.most and batch >= self.first and not late


def scarce(shortages: Sequence[Shortage], rank: int) -> Hook:
    """A hook that lets this rank run out of memory as `shortages` say."""
    left = list(shortages)

    def hook(name: str, detail: dict[str, Any]) -> Leave:
        """Raise MemoryError where there is none for a micro-batch."""
        if name == _PHASE and "samples" in detail:
            for one in left:
                if one.strikes(rank, detail["batch"], detail["samples"]):
                    if one.once:
                        left.remove(one)
                    raise MemoryError(
                        f"out of memory for {detail['samples']} samples (injected by --inject)"
                    )
        return _nothing

    return hook


def _nothing() -> None:
    """Leave a phase for which there is memory."""
