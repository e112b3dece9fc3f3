"""Sums over micro-batches: of losses, weights and metrics, in training and in evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from hpc_train.data import Samples
from hpc_train.errors import HpcTrainError, unknown
from hpc_train.record import phase
from hpc_train.strategies import Tally
from hpc_train.tasks import Losses, Phase
from hpc_train.tasks.task import check_losses
from hpc_train.train.feed import Feed


class Sums:
    """Running sums of weights, losses and metrics, on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._samples = 0

    def add(self, losses: Losses, size: int) -> torch.Tensor:
        """Add a micro-batch of `size` samples; gives the sum of weight times loss."""
        check_losses(losses, size)
        values, weights = losses.values, losses.weights
        if values.dtype.itemsize < 4:  # half a float counts no further than 256 or 2048
            values = values.float()
        total = values.sum() if weights is None else (values * weights).sum()
        weight = values.new_tensor(float(size)) if weights is None else weights.sum()
        for name, value in {"weight": weight, "loss": total, **losses.sums}.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._samples += size
        return total

    def tally(self) -> Tally:
        """The sums as a tally; waits for the device."""
        if not self._sums:
            return Tally()
        flat = [name for key, value in self._sums.items() for name in _names(key, value)]
        numbers = torch.cat([value.reshape(-1) for value in self._sums.values()])
        values = dict(zip(flat, numbers.tolist(), strict=True))
        tally = Tally(weight=values.pop("weight"), loss=values.pop("loss"), sums=values)
        tally.samples = self._samples
        if not math.isfinite(tally.loss):
            tally.flags.add("non_finite")
        return tally


def _names(key: str, value: torch.Tensor) -> list[str]:
    """What the numbers of a sum are called."""
    return [f"{key}_{place}" for place in range(len(value))] if value.dim() else [key]


def check_metrics(tally: Tally, metrics: Sequence[str]) -> None:
    """Check that a task announced the sums that its losses hold.

    Raises:
        HpcTrainError: naming the one that it did not.
    """
    for name in tally.sums:
        if name not in metrics:
            raise HpcTrainError(
                unknown("metric", name, metrics),
                where="task.name",
                hint="name it in `metrics` of the task",
            )


def measure(model: nn.Module, task: Phase, feed: Feed, samples: Iterator[Samples]) -> Tally:
    """The sums of losses and metrics over `samples`, without gradients, in evaluation mode."""
    sums, skipped = Sums(), 0
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), phase("evaluate"):
            for some in samples:
                skipped += some.skipped
                for _, batch in feed.parts(some):
                    with feed.autocast():
                        losses = task.losses(model, batch)
                    sums.add(losses, len(batch))
            tally = sums.tally()
            tally.skipped = skipped
            return tally
    finally:
        model.train(was_training)
