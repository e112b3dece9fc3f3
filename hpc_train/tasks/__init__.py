"""Tasks: what is learned, as a list of phases with per-sample losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpc_train.tasks.adversarial import Adversarial
from hpc_train.tasks.classification import Classification
from hpc_train.tasks.regression import Regression
from hpc_train.tasks.reinforcement import Reinforcement
from hpc_train.tasks.task import Losses, Mixed, Phase, Task, TensorBatch

__all__ = [
    "TASKS",
    "Adversarial",
    "Classification",
    "Losses",
    "Mixed",
    "Phase",
    "Regression",
    "Reinforcement",
    "Task",
    "TensorBatch",
]

# name -> class; further keys of [task] are its arguments
TASKS: Mapping[str, Callable[..., Task]] = {
    "adversarial": Adversarial,
    "classification": Classification,
    "regression": Regression,
    "reinforcement": Reinforcement,
}

Arguments = dict[str, Any]
