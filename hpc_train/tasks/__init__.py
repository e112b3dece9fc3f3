"""Tasks: what is learned, as a list of phases with per-sample losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpc_train.tasks.adversarial import Adversarial
from hpc_train.tasks.classification import Classification
from hpc_train.tasks.reconstruction import Reconstruction
from hpc_train.tasks.regression import Regression
from hpc_train.tasks.reinforcement import Reinforcement
from hpc_train.tasks.task import Losses, Mixed, Phase, Task, TensorBatch, summarized, sums_of
from hpc_train.tasks.tokens import NextToken, SequenceLabels

__all__ = [
    "TASKS",
    "Adversarial",
    "Classification",
    "Losses",
    "Mixed",
    "NextToken",
    "Phase",
    "Reconstruction",
    "Regression",
    "Reinforcement",
    "SequenceLabels",
    "Task",
    "TensorBatch",
    "summarized",
    "sums_of",
]

# name -> class; further keys of [task] are its arguments
TASKS: Mapping[str, Callable[..., Task]] = {
    "adversarial": Adversarial,
    "classification": Classification,
    "next_token": NextToken,
    "reconstruction": Reconstruction,
    "regression": Regression,
    "reinforcement": Reinforcement,
    "sequence_labels": SequenceLabels,
}

Arguments = dict[str, Any]
