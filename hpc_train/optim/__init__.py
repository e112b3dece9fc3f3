"""Optimizers, clipping and learning rates."""

from __future__ import annotations

from hpc_train.optim.clip import clip_factor
from hpc_train.optim.curves import CURVES, Shape
from hpc_train.optim.groups import Group, Grouping
from hpc_train.optim.learning_rate import SCALES, LearningRate, batch_scale
from hpc_train.optim.optimizers import OPTIMIZERS, Settings, find_optimizer, make_optimizer

__all__ = [
    "CURVES",
    "OPTIMIZERS",
    "SCALES",
    "Group",
    "Grouping",
    "LearningRate",
    "Settings",
    "Shape",
    "batch_scale",
    "clip_factor",
    "find_optimizer",
    "make_optimizer",
]
