"""How much each rank did of a run, and how evenly: sums over its steps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_train.strategies import Learner, Outcome, Total

logger = logging.getLogger(__name__)

_TOLD_RANKS = 256  # beyond it, a step's record leaves out what each rank did


class Figures:
    """What the steps took so far, the same on every rank.

    Args:
        num_ranks: at the beginning; ranks are known by the number that they had then.

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

    def add_up(
        self, members: Sequence[int], counts: Sequence[int], busy_seconds: Sequence[float]
    ) -> None:
        """What each of the ranks that there were did in a step."""
        slowest = max(busy_seconds)
        for member, count, busy in zip(members, counts, busy_seconds, strict=True):
            self._samples[member] += count
            self._busy[member] += busy
            self._waiting[member] += slowest - busy

    def document(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return dict(vars(self))

    def take_up(self, document: Mapping[str, Any]) -> None:
        """Be what another rank's `document` says."""
        vars(self).update(document)

    def rows(self, members: Sequence[int], counts: Sequence[int]) -> list[dict[str, Any]]:
        """Per rank: share, trained samples a second of computing, seconds computing and waiting.

        Over all steps whose seconds were told; the last one's never are.

        Args:
            members: the number of each rank at the beginning.
            counts: the shares of a run too short to have told any.
        """
        mine = [self._samples[member] for member in members]
        told = sum(mine) > 0
        counts = mine if told else counts
        total = sum(counts)
        return [
            {
                "rank": member,
                "share": count / total,
                "samples_per_second": count / busy if told and busy else 0.0,
                "busy_seconds": busy,
                "waiting_seconds": self._waiting[member],
            }
            for member, count in zip(members, counts, strict=True)
            for busy in (self._busy[member],)
        ]


def balance(counts: tuple[int, ...], total: Total) -> dict[str, object]:
    """What a step's record says of the step before: who did how much, and how evenly."""
    busy_seconds = total.busy_seconds
    if len(counts) < 2:
        return {}
    busy = [t for n, t in zip(counts, busy_seconds, strict=True) if n]
    record: dict[str, object] = {"balance": round(sum(busy) / len(busy) / max(busy_seconds), 4)}
    if len(counts) <= _TOLD_RANKS:
        seconds = [round(t, 6) for t in busy_seconds]
        record["before"] = {"counts": list(counts), "busy_seconds": seconds}
        if total.claimed:
            seconds = [round(t, 6) for t in total.claimed_seconds]
            record["claimed"] = {"counts": list(total.claimed), "busy_seconds": seconds}
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
        **balance(outcomes[0].before, total),
        **{
            f"{key}_{learner.name}": value
            for learner, outcome in zip(learners[1:], outcomes[1:], strict=True)
            for key, value in (("loss", outcome.total.mean_loss), ("lr", learner.rate))
        },
    }
