"""Checkpoints: sets of tensors that appear whole or not at all, and load on any number of ranks."""

from __future__ import annotations

from hpc_train.checkpoint.store import Manifest, Saved, Store

__all__ = ["Manifest", "Saved", "Store"]
