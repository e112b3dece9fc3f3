"""Batch norm where a share is a single sample, of which there is no variance to be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpc_train.models.sync_batchnorm import SyncBatchNorm


def lone_sample(model: nn.Module, size: int) -> AbstractContextManager[None]:
    """Let batch norms normalize by their running statistics while `size` samples go through: one.

    Those over the whole global batch, and those without running statistics, stay as they are; so
    do all of them for any other size.
    """
    return _by_running_statistics(model) if size == 1 else nullcontext()


@contextmanager
def _by_running_statistics(model: nn.Module) -> Iterator[None]:
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
