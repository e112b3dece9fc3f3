"""Metrics of classes: sums that add up over ranks, and what follows from their totals.

metric       sums over samples of weight times ...
accuracy     label has the highest score
top_K        label is among the K highest scores
f1_macro     per class: said and so, said, so        mean of the classes' F1 scores
f1_micro     (the same)                              F1 of all classes' counts together
confusion    per pair: label i, said j               confusion_I_J, the counts themselves
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

from hpc_train.errors import ConfigError, unknown

KNOWN = ("accuracy", "top_K", "f1_macro", "f1_micro", "confusion")
_MOST_CLASSES = 64  # of a confusion matrix: its counts travel with each step


class Scores:
    """The metrics that were asked for.

    Args:
        wanted: names as in the table above.
        num_classes: how many classes there are; None where nobody knows.

    Raises:
        ConfigError: if a name is not known, or needs a number of classes that is not.
    """

    def __init__(self, wanted: Sequence[str], num_classes: int | None) -> None:
        if isinstance(wanted, str) or not all(isinstance(name, str) for name in wanted):
            raise ConfigError(f"task.metrics must be a list of names (task.metrics: {wanted!r})")
        for name in wanted:
            if (name not in KNOWN and not re.fullmatch(r"top_[1-9]\d*", name)) or name == "top_K":
                raise ConfigError(unknown("metric", name, KNOWN), where="task.metrics")
        self._wanted = tuple(dict.fromkeys(wanted))
        self._tops = [int(name[4:]) for name in self._wanted if name.startswith("top_")]
        self._f1 = any(name.startswith("f1") for name in self._wanted)
        self._confusion = "confusion" in self._wanted
        classes = num_classes or 0
        if (self._f1 or self._confusion) and num_classes is None:
            raise ConfigError(
                f"metrics {', '.join(self._wanted)} need a number of classes",
                where="task.metrics",
                hint="set model.num_classes",
            )
        if self._confusion and classes > _MOST_CLASSES:
            raise ConfigError(
                f"confusion is for at most {_MOST_CLASSES} classes (classes: {classes})",
                where="task.metrics",
            )
        self._classes = classes

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `values` gives."""
        plain = [name for name in self._wanted if name != "confusion"]
        every = range(self._classes if self._confusion else 0)
        return (*plain, *(f"confusion_{i}_{j}" for i in every for j in every))

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of what `sum_up` gives."""
        found = ["accuracy", *(f"top_{count}" for count in self._tops)]
        every = range(self._classes)
        if self._f1:
            found += [f"{what}_{c}" for what in ("hit", "said", "so") for c in every]
        if self._confusion:
            found += [f"confusion_{i * self._classes + j}" for i in every for j in every]
        return tuple(found)

    def sum_up(
        self, scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """The sums of a batch: scores (n, num_classes), labels (n,), weights (n,) or None."""
        said = scores.argmax(1)
        found = {"accuracy": _sum(said == labels, weights)}
        for count in self._tops:
            best = scores.topk(min(count, scores.shape[1]), dim=1).indices
            found[f"top_{count}"] = _sum((best == labels[:, None]).any(1), weights)
        if self._f1 or self._confusion:
            weights = scores.new_ones(len(labels)) if weights is None else weights
            known = functional.one_hot(labels, self._classes).to(weights.dtype)  # (n, classes)
            told = functional.one_hot(said, self._classes).to(weights.dtype)
            both = (known * weights[:, None]).T @ told  # (label, said)
            if self._f1:
                found |= {"hit": both.diagonal(), "said": both.sum(0), "so": both.sum(1)}
            if self._confusion:
                found["confusion"] = both.reshape(-1)
        return found

    def values(self, weight: float, sums: Mapping[str, float]) -> dict[str, float]:
        """The metrics that follow from totals."""
        found: dict[str, float] = {}
        for name in self._wanted:
            if name == "confusion":
                size = self._classes
                for cell in range(size * size):
                    found[f"confusion_{cell // size}_{cell % size}"] = sums[f"confusion_{cell}"]
            elif name.startswith("f1"):
                found[name] = self._f1_of(name, sums)
            else:
                found[name] = sums[name] / weight if weight else math.nan
        return found

    def _f1_of(self, name: str, sums: Mapping[str, float]) -> float:
        counts = [
            (sums[f"hit_{c}"], sums[f"said_{c}"] + sums[f"so_{c}"]) for c in range(self._classes)
        ]
        if name == "f1_micro":
            counts = [(sum(hit for hit, _ in counts), sum(both for _, both in counts))]
        # a class that is neither said nor there has no score, and does not count
        scores = [2 * hit / both for hit, both in counts if both]
        return sum(scores) / len(scores) if scores else math.nan


def _sum(right: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """How many samples are right, each by its weight."""
    return (
        right.sum(dtype=torch.float64)
        if weights is None
        else (right.to(weights.dtype) * weights).sum()
    )
