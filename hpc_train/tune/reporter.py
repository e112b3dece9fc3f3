"""What a trial tells of itself: a technique that reports each evaluation and hears what to do.

The values are the run's own: sums over all samples and ranks of the group, exact. The group's
first rank asks; its answer is broadcast, so all ranks end, pause or go on together.
"""

from __future__ import annotations

import math
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
        known: the evaluations that the journal has; others before the first one are told again.
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
        known: Sequence[int] = (),
    ) -> None:
        self._group = group
        self._trial = trial
        self._metrics = metrics
        self._num_batches = num_batches
        self._ask = ask
        self._stop = stop
        self._known = set(known)
        self._reached: list[list[float | None]] = []  # of each evaluation
        self._begun: float | None = None

    def begin(self, batch: Batch) -> None:
        """Before a global batch: the first one says where this training begins."""
        if self._begun is None:
            self._begun = batch.number / self._num_batches

    def evaluated(self, batch: int, metrics: Mapping[str, float]) -> str | None:
        """Report, and do as is answered."""
        values = [metrics[name] for name in self._metrics]
        self._reached.append([value if math.isfinite(value) else None for value in values])
        step = len(self._reached)
        answer = None
        if self._group.world.is_coordinator:
            told = {"values": self._reached[-1], "earlier": self._untold(step)}
            done = {"done": batch / self._num_batches, "begun": self._begun or 0.0}
            answer = self._ask(
                {"what": "report", "trial": self._trial, "step": step, **told, **done}
            )
        self._known.update(range(1, step + 1))
        answer = self._group.broadcast(answer)
        if answer == "pause":
            self._stop.is_set = True
        return "pruned" if answer == "prune" else None

    def _untold(self, step: int) -> list[tuple[int, list[float | None]]]:
        """What the checkpoint knows and the journal lost with its machine."""
        return [(n, self._reached[n - 1]) for n in range(1, step) if n not in self._known]

    def notes(self) -> dict[str, Any]:
        """What was reached at each evaluation."""
        return {"reached": self._reached}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._reached = [list(values) for values in notes.get("reached", [])]
