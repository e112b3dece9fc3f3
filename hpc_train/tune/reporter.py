"""What a trial tells of itself: a technique that reports each evaluation and hears what to do.

The values are the run's own: sums over all samples and ranks of the group, exact. The group's
first rank asks; its answer is broadcast, so all ranks end, pause or go on together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hpc_train.plan import Batch
from hpc_train.stop import StopFlag
from hpc_train.train.technique import Technique
from hpc_train.world import Group

Ask = Callable[[dict[str, Any]], str]


class TrialStop(StopFlag):
    """The wish that one trial saves and leaves; signals are for the whole study."""

    @contextmanager
    def on_signal(self) -> Iterator[StopFlag]:
        """Listen to no signal."""
        yield self


class Reporter(Technique):
    """Reports evaluations, counted from 1, over all the times that the trial was trained.

    Args:
        group: the ranks of the trial.
        trial: its number.
        metrics: what is reported, in the order of the objectives.
        num_batches: the length of the trial.
        ask: sends a report and gives the answer: "go", "prune" or "pause".
        stop: raised to let the trial save and leave.
    """

    name = "tune"

    def __init__(
        self,
        group: Group,
        trial: int,
        metrics: Sequence[str],
        num_batches: int,
        ask: Ask,
        stop: StopFlag,
    ) -> None:
        self._group = group
        self._trial = trial
        self._metrics = metrics
        self._num_batches = num_batches
        self._ask = ask
        self._stop = stop
        self._evaluations = 0
        self._begun: float | None = None

    def begin(self, batch: Batch) -> None:
        """Before a global batch: the first one says where this training begins."""
        if self._begun is None:
            self._begun = batch.number / self._num_batches

    def evaluated(self, batch: int, metrics: Mapping[str, float]) -> str | None:
        """Report, and do as is answered."""
        self._evaluations += 1
        answer = None
        if self._group.world.is_coordinator:
            values = [metrics[name] for name in self._metrics]
            answer = self._ask(
                {
                    "what": "report",
                    "trial": self._trial,
                    "step": self._evaluations,
                    "values": [value if abs(value) < float("inf") else None for value in values],
                    "done": batch / self._num_batches,
                    "begun": self._begun or 0.0,
                }
            )
        answer = self._group.broadcast(answer)
        if answer == "pause":
            self._stop.is_set = True
        return "pruned" if answer == "prune" else None

    def notes(self) -> dict[str, Any]:
        """How many evaluations there were."""
        return {"evaluations": self._evaluations}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Go on counting."""
        self._evaluations = int(notes.get("evaluations", 0))
