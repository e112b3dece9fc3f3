"""A plain convolutional network for images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.models.layers import activation as make_activation
from hpc_train.models.layers import check_dropout, check_width, check_widths
from hpc_train.models.layers import pool as make_pool


def cnn(
    input_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (32, 64),
    hidden: int = 128,
    dropout: float = 0.0,
    activation: str = "relu",
    pool: str = "max",
) -> nn.Module:
    """Blocks of convolution (3x3), activation and pooling (2x2), then a hidden layer and a head.

    Args:
        input_shape: (channels, height, width) of an image.
        num_classes: number of outputs.
        channels: channels of each block; a block halves height and width while both are >= 2.
        hidden: width of the hidden layer.
        dropout: probability with which its outputs are dropped in training, in [0, 1).
        activation: relu, tanh, gelu or silu.
        pool: max or average.

    Returns:
        A network from (n, *input_shape) to (n, num_classes).

    Raises:
        ConfigError: if an argument is not as described.
    """
    check_widths("channels", channels)
    check_width("hidden", hidden)
    check_width("num_classes", num_classes)
    check_dropout(dropout)
    if len(input_shape) != 3:
        raise ConfigError(
            f"cnn needs inputs of shape (channels, height, width) (shape: {tuple(input_shape)})",
            hint='use model.name = "mlp" for other shapes',
        )
    before, height, width = input_shape
    layers: list[nn.Module] = []
    for after in channels:
        layers += [nn.Conv2d(before, after, 3, padding=1), make_activation(activation)]
        if min(height, width) >= 2:
            layers.append(make_pool(pool, 2))
            height, width = height // 2, width // 2
        before = after
    features = math.prod((before, height, width))
    layers += [nn.Flatten(), nn.Linear(features, hidden), make_activation(activation)]
    layers += [nn.Dropout(dropout), nn.Linear(hidden, num_classes)]
    return nn.Sequential(*layers)
