"""Regression: continuous targets."""

from __future__ import annotations

from torch import nn

from hpc_train.errors import DataError
from hpc_train.tasks.task import Losses, Supervised, TensorBatch


class Regression(Supervised):
    """Mean squared error per sample, and the mean absolute error as a metric."""

    metrics = ("mae",)

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
        return Losses(squares, sums={"mae": sizes.sum()})
