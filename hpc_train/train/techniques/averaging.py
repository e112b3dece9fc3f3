"""Averages of the weights over training: exponential (EMA), or equal from some batch on (SWA).

Evaluations and the finished model have the average; training goes on with the weights themselves.
Running statistics of norms are those of the weights themselves, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from hpc_train.config import Config
from hpc_train.plan import Batch, Every
from hpc_train.strategies import Arena, Learner
from hpc_train.train.technique import FINAL, Technique

Average = Callable[[list[torch.Tensor], list[torch.Tensor], int], None]


class Averaging(Technique):
    """Averages the arenas of all learners after updates of batches that are due.

    Args:
        average: brings an average up to date with the weights: `torch.optim.swa_utils`.
        is_due: whether the weights after a global batch are averaged.
        learners: whose weights are averaged.
    """

    name = "averaging"

    def __init__(
        self, average: Average, is_due: Callable[[Batch], bool], learners: Sequence[Learner]
    ) -> None:
        self._average = average
        self._is_due = is_due
        self._due = False
        self._arenas = {learner.name: learner.arenas for learner in learners}
        self._averages = [(arena, torch.zeros_like(arena.data)) for arena in self._all()]
        self._counts = dict.fromkeys(self._arenas, 0)

    def _all(self) -> Iterator[Arena]:
        return (arena for arenas in self._arenas.values() for arena in arenas)

    def begin(self, batch: Batch) -> None:
        """Learn whether the weights after this batch count."""
        self._due = self._is_due(batch)

    def updated(self, learner: Learner) -> None:
        """Take the new weights into the average; the first ones are the average."""
        if not self._due:
            return
        count = self._counts[learner.name]
        for arena, held in self._averages:
            if any(arena is own for own in self._arenas[learner.name]):
                if count:
                    self._average([held], [arena.data], count)
                else:
                    held.copy_(arena.data)
        self._counts[learner.name] = count + 1

    @contextmanager
    def evaluating(self, *, final: bool) -> Iterator[None]:
        """The average in place of the weights, once there is one."""
        if not self._has_average:
            yield
            return
        weights = [arena.data.clone() for arena, _ in self._averages]
        try:
            self._write([held for _, held in self._averages])
            yield
            self._write(weights)
        except BaseException:
            self._write(weights, alone=True)
            raise

    def finish(self) -> None:
        """Leave the average in the model."""
        if self._has_average:
            self._write([held for _, held in self._averages])

    def tensors(self) -> dict[str, torch.Tensor]:
        """The average of each parameter, by its name."""
        return {
            FINAL + name: arena.view(held, name)
            for arena, held in self._averages
            for name in arena.places
        }

    def notes(self) -> dict[str, Any]:
        """How many weights each phase has averaged."""
        return {"counts": self._counts, "is_final": self._has_average}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take up averages and counts; without them averaging begins anew."""
        for name, count in notes.get("counts", {}).items():
            if name in self._counts:
                self._counts[name] = int(count)
        for arena, held in self._averages:
            for name in arena.places:
                if FINAL + name in tensors:
                    arena.view(held, name).copy_(tensors[FINAL + name])

    @property
    def _has_average(self) -> bool:
        return all(self._counts.values())

    def _write(self, values: Sequence[torch.Tensor], *, alone: bool = False) -> None:
        for (arena, _), value in zip(self._averages, values, strict=True):
            arena.write(lambda data, value=value: data.copy_(value), alone=alone)  # type: ignore[misc]


def make(
    config: Config, num_batches: int, num_samples: int, learners: Sequence[Learner]
) -> Technique | None:
    """The technique, if the configuration asks for one of the two.

    Args:
        config: of the run.
        num_batches: its length, of which SWA begins after a part.
        num_samples: of an epoch.
        learners: whose weights are averaged.
    """
    section = config.regularization
    if section.ema_decay is not None:
        # Polyak and Juditsky, SIAM J. Control Optim. 1992; every update counts
        ema: Average = get_ema_multi_avg_fn(section.ema_decay)  # type: ignore[no-untyped-call]
        return Averaging(ema, lambda batch: True, learners)
    if section.swa_start is None:
        return None
    start, every = section.swa_start * num_batches, Every.parse(section.swa_every)

    def is_due(batch: Batch) -> bool:
        return batch.number + 1 > start and _ends(batch, every, num_samples)

    # Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018
    equal: Average = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
    return Averaging(equal, is_due, learners)


def _ends(batch: Batch, every: Every, num_samples: int) -> bool:
    """Whether a period ends with a global batch."""
    if every.unit == "steps":
        return (batch.number + 1) % every.count == 0
    return batch.last == num_samples and (batch.epoch + 1) % every.count == 0
