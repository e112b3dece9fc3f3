"""Recovery: ranks are slow, hung or lost: injecting it, noticing it, and deciding what now."""

from __future__ import annotations

from hpc_train.recovery.inject import Disturbance, Injection, check_ranks, disturb, hooks, parse

__all__ = ["Disturbance", "Injection", "check_ranks", "disturb", "hooks", "parse"]
