"""Images with their channels last in memory, as convolutions like them on many devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def channels_last(model: nn.Module) -> None:
    """Let the network get its images channels-last, so that its convolutions compute like this.

    Weights stay as they lie in their arena; torch brings them into the order of the images where
    its kernels want it. A network without a `forward` of its own is told part by part.
    """
    whole = type(model).forward is not nn.Module.forward
    for part in [model] if whole else model.children():
        part.register_forward_pre_hook(_reorder)


def _reorder(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(_reordered, arguments))


def _reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _reordered(inner) for name, inner in value.items()}
    if isinstance(value, torch.Tensor) and value.dim() == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value
