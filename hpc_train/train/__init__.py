"""Training: the loop, and the one place that knows every class (`build`)."""

from __future__ import annotations

from hpc_train.train.trainer import Trainer

__all__ = ["Trainer"]
