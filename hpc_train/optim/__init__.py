"""Optimizers, clipping and learning rates."""

from __future__ import annotations

from hpc_train.optim.clip import clip_factor
from hpc_train.optim.learning_rate import CURVES, LearningRate
from hpc_train.optim.optimizers import OPTIMIZERS, make_optimizer

__all__ = ["CURVES", "OPTIMIZERS", "LearningRate", "clip_factor", "make_optimizer"]
