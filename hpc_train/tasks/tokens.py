"""Sequences: a class for each position, such as the next token of a text.

A sample is a sequence; its loss is the weighted mean over its positions, its weight the sum of
theirs. So the loss of a global batch is the mean over all its positions, wherever they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from hpc_train.errors import ConfigError, DataError
from hpc_train.tasks.classification import check_labels
from hpc_train.tasks.task import Losses, Supervised, TensorBatch


class SequenceLabels(Supervised):
    """Cross-entropy of the scores of each position, and accuracy.

    Args:
        ignore: label of positions that do not count, such as padding; None for no such label.
        weights: name of a target with a weight >= 0 for each position; None for 1 each.
    """

    metrics: tuple[str, ...] = ("accuracy",)
    recordable = True

    def __init__(self, ignore: int | None = None, weights: str | None = None) -> None:
        if ignore is not None and type(ignore) is not int:
            raise ConfigError(f"task.ignore must be an integer (task.ignore: {ignore!r})")
        self._ignore = ignore
        self._weights = weights

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """Mean cross-entropy of each sequence; the model gives scores (n, t, num_classes)."""
        scores = batch.through(model)
        labels, weights = self._targets(batch, scores.dtype)
        if scores.dim() != 3 or labels.shape != scores.shape[:2]:
            raise DataError(
                f"sequences need scores of shape (n, t, num_classes) and labels of shape (n, t) "
                f"(scores: {tuple(scores.shape)}, labels: {tuple(labels.shape)})",
                hint='a model with pool = "none" gives scores of each position',
            )
        check_labels(labels, scores.shape[2])
        each = functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none")
        each = each.view(labels.shape)
        right = (scores.argmax(2) == labels).to(each.dtype)
        total = weights.sum(1)
        mean = (each * weights).sum(1) / torch.where(total == 0, 1, total)
        return Losses(mean, total, {"accuracy": (right * weights).sum()})

    def _targets(self, batch: TensorBatch, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels, with 0 for those that do not count, and weights; both of shape (n, t)."""
        targets = dict(batch.targets)
        given = None if self._weights is None else targets.pop(self._weights, None)
        if self._weights is not None and given is None:
            raise DataError(
                f'task.weights must name one of data.targets (task.weights: "{self._weights}", '
                f"data.targets: {', '.join(targets)})"
            )
        if len(targets) != 1:
            raise DataError(
                f"sequences need one target beside the weights (data.targets: {', '.join(targets)})"
            )
        (labels,) = (target.long() for target in targets.values())
        if dtype.itemsize < 4:  # half a float counts no further than 256 or 2048
            dtype = torch.float32
        weights = torch.ones(labels.shape, dtype=dtype, device=labels.device)
        weights = weights if given is None else given.to(dtype)
        if weights.shape != labels.shape:
            raise DataError(
                f"weights must have the shape of their labels "
                f"(weights: {tuple(weights.shape)}, labels: {tuple(labels.shape)})"
            )
        if self._ignore is None:
            return labels, weights
        ignored = labels == self._ignore
        return labels.masked_fill(ignored, 0), weights.masked_fill(ignored, 0)


class NextToken(SequenceLabels):
    """What comes next, at each position of a sequence: labels are the inputs, shifted by one.

    The metrics are perplexity, exp(loss), and accuracy; arguments as those of `SequenceLabels`.
    """

    metrics = ("perplexity", "accuracy")
    sums = ("accuracy",)

    def summarize(self, weight: float, loss: float, sums: Mapping[str, float]) -> dict[str, float]:
        """Perplexity and accuracy over all positions."""
        mean = loss / weight if weight else math.nan
        perplexity = math.exp(mean) if mean < 700 else math.inf if mean >= 700 else math.nan
        return {
            "perplexity": perplexity,
            "accuracy": sums["accuracy"] / weight if weight else math.nan,
        }
