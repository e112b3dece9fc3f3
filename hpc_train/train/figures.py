"""How much each rank did of a run, and how evenly: sums over its steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from hpc_train.strategies import Learner, Outcome

logger = logging.getLogger(__name__)

_TOLD_RANKS = 256  # beyond it, a step's record leaves out what each rank did


class Figures:
    """What the steps took so far, the same on every rank.

    Attributes:
        samples: trained samples.
        seconds: of training steps.
        skipped: samples that could not be read, each time they were due.
    """

    def __init__(self, num_ranks: int) -> None:
        self.samples = 0
        self.seconds = 0.0
        self.skipped = 0
        self._samples = [0] * num_ranks
        self._busy = [0.0] * num_ranks
        self._waiting = [0.0] * num_ranks

    @property
    def samples_per_second(self) -> float:
        """Of all ranks together, in training steps."""
        return self.samples / self.seconds if self.seconds else 0.0

    def add(self, size: int, seconds: float, skipped: int = 0) -> None:
        """A step of `size` samples, `skipped` of which could not be read."""
        if skipped and not self.skipped:
            logger.warning("samples are skipped: they cannot be read (the ranks' logs name them)")
        self.samples += size - skipped
        self.skipped += skipped
        self.seconds += seconds

    def add_up(self, counts: Sequence[int], busy_seconds: Sequence[float]) -> None:
        """What each rank did in a step."""
        slowest = max(busy_seconds)
        for rank, (count, busy) in enumerate(zip(counts, busy_seconds, strict=True)):
            self._samples[rank] += count
            self._busy[rank] += busy
            self._waiting[rank] += slowest - busy

    def keep(self, ranks: Sequence[int]) -> None:
        """Only these ranks are left."""
        self._samples = [self._samples[rank] for rank in ranks]
        self._busy = [self._busy[rank] for rank in ranks]
        self._waiting = [self._waiting[rank] for rank in ranks]

    def rows(self, members: Sequence[int], counts: Sequence[int]) -> list[dict[str, Any]]:
        """Per rank: share, trained samples a second of computing, seconds computing and waiting.

        Over all steps whose seconds were told; the last one's never are.

        Args:
            members: the number of each rank at the beginning.
            counts: the shares of a run too short to have told any.
        """
        told = sum(self._samples) > 0
        counts = self._samples if told else counts
        total = sum(counts)
        return [
            {
                "rank": member,
                "share": count / total,
                "samples_per_second": count / busy if told and busy else 0.0,
                "busy_seconds": busy,
                "waiting_seconds": waiting,
            }
            for member, count, busy, waiting in zip(
                members, counts, self._busy, self._waiting, strict=True
            )
        ]


def balance(counts: tuple[int, ...], busy_seconds: tuple[float, ...]) -> dict[str, object]:
    """What a step's record says of the step before: who did how much, and how evenly."""
    if len(counts) < 2:
        return {}
    busy = [t for n, t in zip(counts, busy_seconds, strict=True) if n]
    record: dict[str, object] = {"balance": round(sum(busy) / len(busy) / max(busy_seconds), 4)}
    if len(counts) <= _TOLD_RANKS:
        seconds = [round(t, 6) for t in busy_seconds]
        record["before"] = {"counts": list(counts), "busy_seconds": seconds}
    return record


def step_record(
    outcomes: Sequence[Outcome], learners: Sequence[Learner], size: int, elapsed: float
) -> dict[str, object]:
    """What a step's record says of what became of it.

    Args:
        outcomes, learners: of each phase of the task that was run, in their order.
        size: samples of the global batch.
        elapsed: seconds of the step.
    """
    total = outcomes[0].total
    return {
        "kind": "step",
        "loss": total.mean_loss,
        "grad_norm": outcomes[0].norm,
        "samples_per_second": size / elapsed,
        "delivered": total.digest,
        **({"skipped_samples": total.skipped} if total.skipped else {}),
        **balance(outcomes[0].before, total.busy_seconds),
        **{
            f"{key}_{learner.name}": value
            for learner, outcome in zip(learners[1:], outcomes[1:], strict=True)
            for key, value in (("loss", outcome.total.mean_loss), ("lr", learner.rate))
        },
    }
