"""Checkpoints: sets of tensors that appear whole or not at all, and load on any number of ranks."""

from __future__ import annotations

from hpc_train.checkpoint.keep import METRICS, Best
from hpc_train.checkpoint.pace import Pace
from hpc_train.checkpoint.resume import newest
from hpc_train.checkpoint.saver import Saver
from hpc_train.checkpoint.store import Manifest, Saved, Store

__all__ = ["METRICS", "Best", "Manifest", "Pace", "Saved", "Saver", "Store", "newest"]
