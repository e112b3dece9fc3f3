"""A multi-layer perceptron for inputs of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hpc_train.models.layers import activation as make_activation
from hpc_train.models.layers import check_dropout, check_width, check_widths


def mlp(
    input_shape: Sequence[int],
    num_classes: int,
    hidden: Sequence[int] = (128,),
    dropout: float = 0.0,
    activation: str = "relu",
) -> nn.Module:
    """Fully connected layers over the flattened input.

    Args:
        input_shape: shape of one input.
        num_classes: number of outputs.
        hidden: width of each hidden layer.
        dropout: probability with which hidden outputs are dropped in training, in [0, 1).
        activation: relu, tanh, gelu or silu.

    Returns:
        A network from (n, *input_shape) to (n, num_classes).

    Raises:
        ConfigError: if an argument is not as described.
    """
    check_widths("hidden", hidden)
    check_width("num_classes", num_classes)
    check_dropout(dropout)
    # an input of one number has no axis to flatten, and needs one for its features
    layers: list[nn.Module] = [nn.Flatten() if input_shape else nn.Unflatten(0, (-1, 1))]
    before = math.prod(input_shape)
    for after in hidden:
        layers += [nn.Linear(before, after), make_activation(activation), nn.Dropout(dropout)]
        before = after
    layers.append(nn.Linear(before, num_classes))
    return nn.Sequential(*layers)
