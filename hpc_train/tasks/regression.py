"""Regression: continuous targets."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from hpc_train.errors import DataError
from hpc_train.tasks.task import Losses, Supervised, TensorBatch


class Regression(Supervised):
    """Mean squared error per sample; the metrics are mae, and R squared over all values."""

    metrics = ("mae", "r2")
    sums = ("mae", "target", "target_square")
    recordable = True

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """Squared error per sample, averaged over all axes but the first."""
        predicted = batch.through(model)
        target = batch.target.to(predicted.dtype)
        if target.dim() == 1 and predicted.shape == (len(target), 1):
            predicted = predicted.squeeze(1)
        if predicted.shape != target.shape:
            raise DataError(
                f"predictions must have the shape of their targets "
                f"(predictions: {tuple(predicted.shape)}, targets: {tuple(target.shape)})",
                hint="set model.num_classes to the number of target values",
            )
        error = (predicted - target).flatten(1) if target.dim() > 1 else predicted - target
        squares, sizes = error.square(), error.abs()
        if target.dim() > 1:
            squares, sizes = squares.mean(1), sizes.mean(1)
        wide = target.detach().double().reshape(len(target), -1)
        moments = {"target": wide.mean(1).sum(), "target_square": wide.square().mean(1).sum()}
        return Losses(squares, sums={"mae": sizes.sum(), **moments})

    def summarize(self, weight: float, loss: float, sums: Mapping[str, float]) -> dict[str, float]:
        """Mean absolute error, and 1 - mean squared error / variance of the targets."""
        if not weight:
            return {"mae": math.nan, "r2": math.nan}
        mean = sums["target"] / weight
        variance = sums["target_square"] / weight - mean * mean
        r2 = 1 - loss / weight / variance if variance > 0 else math.nan
        return {"mae": sums["mae"] / weight, "r2": r2}
