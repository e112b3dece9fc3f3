"""Classification: one of several classes per sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from hpc_train.errors import ConfigError, DataError
from hpc_train.tasks.scores import Scores
from hpc_train.tasks.task import Losses, Supervised, TensorBatch


class Classification(Supervised):
    """Cross-entropy of class scores, and metrics of classes.

    Args:
        class_weights: weight of each class, >= 0, shape (num_classes,); None for 1 each. The loss
            is the weighted mean over the global batch.
        label_smoothing: part of each label that is spread evenly over all classes in training, in
            [0, 1): Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7.
            Evaluations have the plain cross-entropy.
        metrics: which are measured: accuracy, top_K, f1_macro, f1_micro, confusion.
        num_classes: how many classes there are, for the last three.
    """

    recordable = True

    def __init__(
        self,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        metrics: Sequence[str] = ("accuracy",),
        num_classes: int | None = None,
    ) -> None:
        self._scores = Scores(metrics, num_classes)
        self.metrics, self.sums = self._scores.metrics, self._scores.sums
        self._label_smoothing = label_smoothing
        if class_weights is not None and not _are_weights(class_weights):
            raise ConfigError(
                "task.class_weights must be a list of numbers >= 0, not all of them 0 "
                f"(task.class_weights: {class_weights!r})"
            )
        self._class_weights = (
            None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
        )
        self._moved: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """Cross-entropy per sample; the model gives scores of shape (n, num_classes)."""
        scores = batch.through(model)
        labels = batch.target.long()
        if scores.dim() != 2 or labels.dim() != 1:
            raise DataError(
                f"classification needs scores of shape (n, num_classes) and labels of shape (n,) "
                f"(scores: {tuple(scores.shape)}, labels: {tuple(labels.shape)})",
                hint='use task.name = "regression" for continuous targets',
            )
        check_labels(labels, scores.shape[1])
        smoothing = self._label_smoothing if model.training else 0.0
        values = functional.cross_entropy(
            scores, labels, reduction="none", label_smoothing=smoothing
        )
        if self._class_weights is None:
            return Losses(values, sums=self._scores.sum_up(scores.detach(), labels, None))
        if len(self._class_weights) != scores.shape[1]:
            raise ConfigError(
                f"task.class_weights must hold one weight for each of the {scores.shape[1]} "
                f"classes (weights: {len(self._class_weights)})"
            )
        weights = self._weights_like(values)[labels]
        return Losses(values, weights, self._scores.sum_up(scores.detach(), labels, weights))

    def _weights_like(self, values: torch.Tensor) -> torch.Tensor:
        """The weights of classes, moved once: a copy in every step could not be recorded."""
        kind = (values.device, values.dtype)
        if kind not in self._moved:
            assert self._class_weights is not None
            self._moved[kind] = self._class_weights.to(values)
        return self._moved[kind]

    def summarize(self, weight: float, loss: float, sums: Mapping[str, float]) -> dict[str, float]:
        """The metrics that follow from totals."""
        return self._scores.values(weight, sums)

    def predict(self, outputs: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The likeliest class, shape (n,), and probabilities, shape (n, num_classes)."""
        return {"class": outputs.argmax(1), "probability": outputs.softmax(1)}

    def combine(self, outputs: torch.Tensor) -> torch.Tensor:
        """Scores of the mean probabilities of an ensemble's members, (members, n, num_classes)."""
        return outputs.log_softmax(-1).logsumexp(0) - math.log(len(outputs))


def _are_weights(values: object) -> bool:
    return (
        isinstance(values, list)
        and all(type(v) in (int, float) and 0 <= v < math.inf for v in values)
        and any(values)
    )


def check_labels(labels: torch.Tensor, num_classes: int) -> None:
    """Check that labels lie in [0, num_classes) where that costs no wait for a device.

    Raises:
        DataError: naming the label.
    """
    if labels.device.type != "cpu" or labels.numel() == 0:
        return
    low, high = (int(x) for x in torch.aminmax(labels))
    if low < 0 or high >= num_classes:
        raise DataError(
            f"label must lie in [0, {num_classes}) (label: {low if low < 0 else high})",
            hint="check data.targets, or set model.num_classes",
        )
