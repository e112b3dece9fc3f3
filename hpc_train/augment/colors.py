"""Augmentations of colour: brightness, contrast, saturation."""

from __future__ import annotations

import torch

from hpc_train.augment.augmentation import Draws
from hpc_train.augment.checks import check_range
from hpc_train.errors import ConfigError

_GRAY = (0.299, 0.587, 0.114)  # how bright red, green and blue look: ITU-R BT.601


class Color:
    """Brightness, contrast and saturation times factors in [1 - x, 1 + x], in this order.

    Args:
        brightness, contrast: x of all values, and of their distance to the image's mean gray,
            in [0, 1].
        saturation: x of the distance of each pixel to its gray, in [0, 1]; for three channels.
    """

    num_draws = 3

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.0
    ) -> None:
        for name, value in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
        ):
            check_range(name, value, 0, 1, "a number in [0, 1]")
        self._most = brightness, contrast, saturation

    def apply(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Images of shape (n, channels, height, width)."""
        if inputs.dim() != 4:
            raise ConfigError(
                "color needs images of shape (channels, height, width) "
                f"(shape: {tuple(inputs.shape[1:])})",
                where="augmentation",
            )
        if self._most[2] and inputs.shape[1] != 3:
            raise ConfigError(
                f"saturation needs images of three channels (channels: {inputs.shape[1]})",
                where="augmentation",
                hint="leave saturation out",
            )
        brightness, contrast, saturation = (
            draws.between(i, 1 - most, 1 + most).to(inputs.dtype).view(-1, 1, 1, 1)
            for i, most in enumerate(self._most)
        )
        bright = inputs * brightness
        mean = _gray(bright).mean((1, 2, 3), keepdim=True)
        changed = mean + (bright - mean) * contrast
        if self._most[2]:
            gray = _gray(changed)
            changed = gray + (changed - gray) * saturation
        return changed


def _gray(images: torch.Tensor) -> torch.Tensor:
    """One channel of how bright pixels look; the mean, if there are not three channels."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(_GRAY).view(1, 3, 1, 1)).sum(1, keepdim=True)
