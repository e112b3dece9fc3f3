"""The tally: what a step reports, one small float64 sum by which all ranks agree.

    [ weight | loss | metric sums ... | failed non_finite stop save saving preempted join | digest
      | skipped | squares
      | seconds of rank 0 .. p-1 in the step before | rank 0's next plan 0 .. p-1 ]

Every rank writes its own part, zeros elsewhere; the sum is the same on every rank, so all of them
skip, stop, save or leave in the same step. It is never compressed and never a part of the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hpc_train.plan import Plan

FLAGS = ("failed", "non_finite", "stop", "save", "saving", "preempted", "join")
_NO_FLAGS = (0.0,) * len(FLAGS)


@dataclass
class Tally:
    """One rank's part.

    Attributes:
        weight: sum of sample weights.
        loss: sum of weight times loss.
        sums: sums of the metrics, by name.
        flags: those of `FLAGS` that this rank raises.
        digest: hash of the samples that were delivered, in [0, 2^32).
        busy_seconds: what this rank computed in the step before, waiting excluded.
        samples: how many samples this rank had; not summed.
        skipped: how many could not be read.
        squares: sum of squares of the part of the summed gradient that this rank made.
    """

    weight: float = 0.0
    loss: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    digest: int = 0
    busy_seconds: float = 0.0
    samples: int = 0
    skipped: int = 0
    squares: float = 0.0


@dataclass(frozen=True)
class Total:
    """The sum over all ranks.

    `flags` counts the ranks that raised each flag, `digest` is the sum modulo 2^32, whatever the
    split, `busy_seconds` has one entry per rank, `counts` is the plan from the next batch on.
    """

    weight: float
    loss: float
    sums: dict[str, float]
    flags: dict[str, int]
    digest: int
    busy_seconds: tuple[float, ...]
    counts: tuple[int, ...]
    skipped: int = 0
    squares: float = 0.0

    @property
    def mean_loss(self) -> float:
        """Mean loss of the global batch; NaN if all weights are 0."""
        return self.loss / self.weight if self.weight else float("nan")


class Layout:
    """Where each entry of the tally lies, for given names of sums and number of ranks."""

    def __init__(self, metrics: Sequence[str], num_ranks: int) -> None:
        self.metrics = tuple(metrics)
        self.num_ranks = num_ranks
        self._flags = 2 + len(self.metrics)
        self._digest = self._flags + len(FLAGS)
        self._skipped = self._digest + 1
        self._squares = self._skipped + 1
        self._seconds = self._squares + 1
        self._plan = self._seconds + num_ranks
        self.size = self._plan + num_ranks

    def pack(self, tally: Tally, rank: int, plan: Plan | None) -> NDArray[np.float64]:
        """The vector of one rank, shape (size,); `plan` is the next one, on rank 0 alone."""
        sums, flags = tally.sums, tally.flags
        numbers = [
            tally.weight,
            tally.loss,
            *[sums.get(name, 0.0) for name in self.metrics],
            *([flag in flags for flag in FLAGS] if flags else _NO_FLAGS),
            tally.digest,
            tally.skipped,
            tally.squares,
        ]
        vector = np.zeros(self.size)
        vector[: self._seconds] = numbers
        vector[self._seconds + rank] = tally.busy_seconds
        if plan is not None:
            vector[self._plan :] = plan.counts
        return vector

    def unpack(self, vector: NDArray[np.float64]) -> Total:
        """What the sum of all vectors says."""
        numbers = vector.tolist()
        flags = numbers[self._flags : self._digest]
        return Total(
            weight=numbers[0],
            loss=numbers[1],
            sums=dict(zip(self.metrics, numbers[2 : self._flags], strict=True)),
            flags=dict(zip(FLAGS, map(int, flags), strict=True)),
            digest=int(numbers[self._digest]) & 0xFFFFFFFF,
            busy_seconds=tuple(numbers[self._seconds : self._plan]),
            counts=tuple(map(int, numbers[self._plan :])),
            skipped=int(numbers[self._skipped]),
            squares=numbers[self._squares],
        )
