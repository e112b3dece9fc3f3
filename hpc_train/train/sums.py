"""Sums over micro-batches: of losses, weights and metrics, in training and in evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

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
        self._ones = 0.0  # weight of samples that count 1 each
        self._samples = 0

    def add(self, found: Mapping[str, torch.Tensor], size: int) -> None:
        """Add what `totals` found of a micro-batch of `size` samples."""
        if "weight" not in found:
            self._ones += size
        for name, value in found.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._samples += size

    def tally(self) -> Tally:
        """The sums as a tally; waits for the device."""
        if not self._sums:
            return Tally()
        flat = [name for key, value in self._sums.items() for name in _names(key, value)]
        numbers = torch.cat([value.reshape(-1) for value in self._sums.values()])
        values = dict(zip(flat, numbers.tolist(), strict=True))
        weight = self._ones + values.pop("weight", 0.0)
        tally = Tally(weight=weight, loss=values.pop("loss"), sums=values)
        tally.samples = self._samples
        if not math.isfinite(tally.loss):
            tally.flags.add("non_finite")
        return tally


def totals(losses: Losses, size: int) -> dict[str, torch.Tensor]:
    """The sums of a micro-batch of `size` samples, each a scalar or of shape (k,).

    "loss" is that of weight times loss, to be derived; "weight" that of the weights, if samples do
    not count 1 each; the others are those of the task.
    """
    check_losses(losses, size)
    values, weights = losses.values, losses.weights
    if values.dtype.itemsize < 4:  # half a float counts no further than 256 or 2048
        values = values.float()
    if weights is None:
        return {"loss": values.sum(), **losses.sums}
    return {"loss": (values * weights).sum(), "weight": weights.sum(), **losses.sums}


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
                    sums.add(totals(losses, len(batch)), len(batch))
            tally = sums.tally()
            tally.skipped = skipped
            return tally
    finally:
        model.train(was_training)
