"""A table of values, as a network without layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hpc_train.models.layers import check_width


def table(input_shape: Sequence[int], num_classes: int, initial: float = 0.0) -> nn.Module:
    """One value for each state and output, for states that are one-hot.

    Args:
        input_shape: shape of one state.
        num_classes: number of outputs, such as actions.
        initial: what all values are at first; above what can be reached it makes greedy actions
            try everything.

    Returns:
        A network from (n, *input_shape) to (n, num_classes).
    """
    check_width("num_classes", num_classes)
    values = nn.Linear(math.prod(input_shape), num_classes, bias=False)
    nn.init.constant_(values.weight, initial)
    return nn.Sequential(nn.Flatten(), values)
