"""Recovery: what happens when ranks are slow or lost; so far, how to make them slow on purpose."""

from __future__ import annotations

from hpc_train.recovery.inject import Disturbance, check_ranks, disturb, parse

__all__ = ["Disturbance", "check_ranks", "disturb", "parse"]
