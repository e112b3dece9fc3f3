"""The tally: what a step reports, one small float64 sum by which all ranks agree.

    [ weight | loss | metric sums ... | failed non_finite stop save saving preempted join | digest
      | skipped | squares
      | seconds of rank 0 .. p-1 in the step before | rank 0's next plan 0 .. p-1
      | samples that rank 0 .. p-1 claimed in the step before | seconds of it that they took ]

The last line is there where ranks claim samples.

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
        claimed: samples that this rank claimed in the step before ...
        claimed_seconds: ... and what of `busy_seconds` they took.
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
    claimed: int = 0
    claimed_seconds: float = 0.0


@dataclass(frozen=True)
class Total:
    """The sum over all ranks.

    `flags` counts the ranks that raised each flag, `digest` is the sum modulo 2^32, whatever the
    split, `busy_seconds` has one entry per rank, `counts` is the plan from the next batch on.
    `claimed` and `claimed_seconds` have one entry per rank, or none where nothing can be claimed.
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
    claimed: tuple[int, ...] = ()
    claimed_seconds: tuple[float, ...] = ()

    @property
    def mean_loss(self) -> float:
        """Mean loss of the global batch; NaN if all weights are 0."""
        return self.loss / self.weight if self.weight else float("nan")


class Layout:
    """Where each entry of the tally lies, for given names of sums and number of ranks.

    Args:
        metrics: the names.
        num_ranks: how many ranks there are.
        claims: whether they claim samples.
    """

    def __init__(self, metrics: Sequence[str], num_ranks: int, *, claims: bool = False) -> None:
        self.metrics = tuple(metrics)
        self.num_ranks = num_ranks
        self._flags = 2 + len(self.metrics)
        self._digest = self._flags + len(FLAGS)
        self._skipped = self._digest + 1
        self._squares = self._skipped + 1
        self._seconds = self._squares + 1
        self._plan = self._seconds + num_ranks
        self._claimed = self._plan + num_ranks
        self.size = self._claimed + (2 * num_ranks if claims else 0)

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
            vector[self._plan : self._claimed] = plan.counts
        if self.size > self._claimed:
            vector[self._claimed + rank] = tally.claimed
            vector[self._claimed + self.num_ranks + rank] = tally.claimed_seconds
        return vector

    def add_squares(self, vector: NDArray[np.float64], squares: float) -> NDArray[np.float64]:
        """A vector whose squares are larger by `squares`."""
        told = vector.copy()
        told[self._squares] += squares
        return told

    def unpack(self, vector: NDArray[np.float64]) -> Total:
        """What the sum of all vectors says."""
        numbers = vector.tolist()
        flags = numbers[self._flags : self._digest]
        seconds = self._claimed + self.num_ranks
        return Total(
            weight=numbers[0],
            loss=numbers[1],
            sums=dict(zip(self.metrics, numbers[2 : self._flags], strict=True)),
            flags=dict(zip(FLAGS, map(int, flags), strict=True)),
            digest=int(numbers[self._digest]) & 0xFFFFFFFF,
            busy_seconds=tuple(numbers[self._seconds : self._plan]),
            counts=tuple(map(int, numbers[self._plan : self._claimed])),
            skipped=int(numbers[self._skipped]),
            squares=numbers[self._squares],
            claimed=tuple(map(int, numbers[self._claimed : seconds])),
            claimed_seconds=tuple(numbers[seconds:]),
        )
