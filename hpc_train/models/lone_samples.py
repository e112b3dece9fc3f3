"""Batch norm where a share is a single sample, of which there is no variance to be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpc_train.models.sync_batchnorm import SyncBatchNorm


@contextmanager
def lone_sample(model: nn.Module, size: int) -> Iterator[None]:
    """Let batch norms normalize by their running statistics while `size` samples go through: one.

    Those over the whole global batch, and those without running statistics, stay as they are; so
    do all of them for any other size.
    """
    if size != 1:
        yield
        return
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm)
        and not isinstance(layer, SyncBatchNorm)
        and layer.training
        and layer.track_running_stats
    ]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
