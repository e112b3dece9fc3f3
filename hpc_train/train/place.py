"""Where a run is, to the phase: what survivors must know of each other when a rank is lost."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from hpc_train.strategies import Outcome, Total

_KEPT_RECORDS = 4  # ranks are at most one commit apart


@dataclass
class Place:
    """What is true between two batches, and what of a batch is done already.

    Attributes:
        looked_up: the batch of the last look-up (evaluation, save) that was finished.
        outcomes: what became of the phases of the present batch that are committed.
        leaving: whether the run was asked to save and leave.
        open: whether a phase has begun that is not finished: module buffers have moved on.
        whole: false in the middle of a commit.
        done: batches that have their update though an earlier one has not (parameter server).
        fresh: whether this rank takes the place of one that died, and has no state yet.
        techniques: their notes as of the last commit or look-up.
        told: the batch of the last step that this rank's sinks were told of.
        recent: the last records of steps, which also ranks keep that tell nobody.
    """

    looked_up: int
    outcomes: list[Outcome] = field(default_factory=list)
    leaving: bool = False
    open: bool = False
    whole: bool = True
    done: list[int] = field(default_factory=list)
    fresh: bool = False
    techniques: dict[str, Any] = field(default_factory=dict)
    told: int = -1
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_RECORDS))


def told(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Outcomes as JSON."""
    return [asdict(outcome) for outcome in outcomes]


def heard(documents: list[dict[str, Any]]) -> list[Outcome]:
    """The outcomes that `told` told."""
    return [
        Outcome(
            **{
                **document,
                "total": Total(
                    **{
                        **document["total"],
                        "busy_seconds": tuple(document["total"]["busy_seconds"]),
                        "counts": tuple(document["total"]["counts"]),
                        "claimed": tuple(document["total"]["claimed"]),
                        "claimed_seconds": tuple(document["total"]["claimed_seconds"]),
                    }
                ),
                "before": tuple(document["before"]),
            }
        )
        for document in documents
    ]
