"""Augmentations that add noise: of one size for all samples, or of the size of each series."""

from __future__ import annotations

import torch

from hpc_train.augment.augmentation import Draws
from hpc_train.augment.checks import check_range
from hpc_train.keyed import normals


class Noise:
    """Gaussian noise on every value.

    Args:
        std: its standard deviation, > 0, in the units of the inputs as the model gets them.
    """

    num_draws = 0

    def __init__(self, std: float = 0.05) -> None:
        check_range("std", std, 1e-12, 1e12, "a number > 0")
        self._std = std

    def apply(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Samples of any shape."""
        return inputs + self._std * _noise(inputs, draws)


class Jitter:
    """Gaussian noise in proportion to how much each series varies.

    Args:
        fraction: of the standard deviation of a series along its last axis, > 0.
    """

    num_draws = 0

    def __init__(self, fraction: float = 0.1) -> None:
        check_range("fraction", fraction, 1e-12, 1e12, "a number > 0")
        self._fraction = fraction

    def apply(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Series of shape (n, ..., time)."""
        size = inputs.std(-1, correction=0, keepdim=True) * self._fraction
        return inputs + size * _noise(inputs, draws)


def _noise(inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Standard normal numbers like `inputs`."""
    count = inputs[:1].numel()
    noise = normals(draws.seed, draws.epoch, draws.ids, count, inputs.dtype)
    return noise.reshape(inputs.shape)
