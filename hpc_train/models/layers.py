"""Layers that models choose by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def check_widths(key: str, widths: Sequence[int]) -> None:
    """Check that `widths` is a list of positive integers.

    Raises:
        ConfigError: naming the key of `[model]` and its value.
    """
    is_list = isinstance(widths, Sequence) and not isinstance(widths, str)
    if not is_list or any(type(width) is not int or width < 1 for width in widths):
        raise ConfigError(
            f"model.{key} must be a list of positive integers (model.{key}: {widths!r})",
            hint=f"write model.{key}=[64, 64]",
        )


def check_width(key: str, width: int) -> None:
    """Check that `width` is a positive integer.

    Raises:
        ConfigError: naming the key of `[model]` and its value.
    """
    if type(width) is not int or width < 1:
        raise ConfigError(f"model.{key} must be a positive integer (model.{key}: {width!r})")


def check_dropout(probability: float) -> None:
    """Check that a probability of dropping an output lies in [0, 1).

    Raises:
        ConfigError: naming the value.
    """
    if not isinstance(probability, int | float) or not 0 <= probability < 1:
        raise ConfigError(
            f"model.dropout must lie in [0, 1) (model.dropout: {probability!r})",
        )
