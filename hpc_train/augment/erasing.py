"""Augmentations that erase a part of a sample: cutout of images, masking of series."""

from __future__ import annotations

import torch

from hpc_train.augment.augmentation import Draws
from hpc_train.augment.checks import check_count
from hpc_train.errors import ConfigError


class Cutout:
    """A square of zeros, its centre anywhere in the image.

    DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
    2017.

    Args:
        size: edge of the square in pixels, >= 1.
    """

    num_draws = 2

    def __init__(self, size: int = 8) -> None:
        check_count("size", size)
        self._size = size

    def apply(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Images of shape (n, channels, height, width)."""
        if inputs.dim() != 4:
            raise ConfigError(
                "cutout needs images of shape (channels, height, width) "
                f"(shape: {tuple(inputs.shape[1:])})",
                where="augmentation",
            )
        height, width = inputs.shape[2:]
        rows = self._inside(draws.uniform[:, 0], height)[:, None, :, None]
        columns = self._inside(draws.uniform[:, 1], width)[:, None, None, :]
        return inputs.masked_fill(rows & columns, 0.0)

    def _inside(self, uniform: torch.Tensor, length: int) -> torch.Tensor:
        """Which places of an axis the square covers, shape (n, length)."""
        first = (uniform * length).floor() - self._size // 2
        places = torch.arange(length, device=uniform.device)[None, :]
        return (places >= first[:, None]) & (places < first[:, None] + self._size)


class Masking:
    """A stretch of zeros along one axis, as long as chance will have it.

    Park et al., "SpecAugment", Interspeech 2019, section 2.

    Args:
        length: longest stretch, >= 1.
        axis: of a sample: -1, the last one, is time in a series of shape (channels, time).
    """

    num_draws = 2

    def __init__(self, length: int = 10, axis: int = -1) -> None:
        check_count("length", length)
        if type(axis) is not int:
            raise ConfigError(f"axis must be an integer (axis: {axis!r})", where="augmentation")
        self._length = length
        self._axis = axis

    def apply(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Samples of at least one axis; the stretch has 0 to `length` places, all inside."""
        dims = inputs.dim() - 1
        if not -dims <= self._axis < dims:
            raise ConfigError(
                f"axis must be one of the sample's {dims} (axis: {self._axis})",
                where="augmentation",
            )
        axis = self._axis % dims + 1
        length = inputs.shape[axis]
        size = (draws.uniform[:, 0] * (min(self._length, length) + 1)).floor()
        first = (draws.uniform[:, 1] * (length - size + 1)).floor()
        places = torch.arange(length, device=inputs.device)[None, :]
        inside = (places >= first[:, None]) & (places < (first + size)[:, None])
        shape = [len(inputs), *[1] * dims]
        shape[axis] = length
        return inputs.masked_fill(inside.view(shape), 0.0)
