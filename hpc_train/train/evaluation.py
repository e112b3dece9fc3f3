"""Exact evaluation on any number of ranks: every sample once, sums in float64."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from hpc_train.data import Samples
from hpc_train.plan import works
from hpc_train.strategies import Layout, Tally, Total
from hpc_train.tasks import Task, summarized, sums_of
from hpc_train.train.build import Parts
from hpc_train.train.some_loss import MOST_AT_ONCE
from hpc_train.train.source import Source
from hpc_train.train.sums import check_metrics, measure
from hpc_train.world import together

logger = logging.getLogger(__name__)


def evaluate(parts: Parts, kind: str) -> dict[str, float]:
    """Mean loss and metrics over a whole data set, the same on every rank.

    Args:
        parts: the run.
        kind: which of its data sets, "validation" or "test".

    Raises:
        RankError: on every rank, if it fails on one.
    """
    world, loader = parts.comm.world, parts.loaders[kind]
    total = loader.dataset.num_samples
    start, stop = (total * rank // world.size for rank in (world.rank, world.rank + 1))
    size = parts.config.data.micro_batch_size or min(MOST_AT_ONCE, parts.config.data.batch_size)
    phase = parts.evaluation

    def part() -> Tally:
        tally = measure(parts.model, phase, parts.feed, _samples(loader, start, stop, size))
        check_metrics(tally, sums_of(parts.task))
        return tally

    tally = together(parts.comm, part)
    layout = Layout(list(sums_of(parts.task)), world.size)
    result = layout.unpack(parts.comm.sum(layout.pack(tally, world.rank, None)))
    if result.skipped and world.is_coordinator:
        logger.warning("%s: %d samples were skipped: they cannot be read", kind, result.skipped)
    return {"loss": result.mean_loss, **measured(parts.task, result)}


def measured(task: Task, total: Total) -> dict[str, float]:
    """The metrics of a task that follow from the sums of all ranks."""
    return summarized(task, total.weight, total.loss, total.sums)


def _samples(loader: Source, start: int, stop: int, size: int) -> Iterator[Samples]:
    """Samples [start, stop) in the order of ids, `size` at a time."""
    some = list(works(start, stop, size))
    loader.follow(iter(some))
    return map(loader.get, some)
