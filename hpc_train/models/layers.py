"""Layers that models choose by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hpc_train.errors import ConfigError, unknown

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

POOLS: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


def activation(name: str) -> nn.Module:
    """The activation called `name`."""
    if name not in ACTIVATIONS:
        raise ConfigError(unknown("activation", name, ACTIVATIONS), where="model.activation")
    return ACTIVATIONS[name]()


def pool(name: str, size: int) -> nn.Module:
    """The pooling called `name`, over windows of size x size."""
    if name not in POOLS:
        raise ConfigError(unknown("pool", name, POOLS), where="model.pool")
    return POOLS[name](size)
