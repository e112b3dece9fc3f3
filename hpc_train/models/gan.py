"""The two networks of a generative adversarial network for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from hpc_train.errors import ConfigError, unknown
from hpc_train.models.layers import check_width, check_widths

# what follows a convolution, for a number of channels; all but "batch" treat each image by itself
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "batch": nn.BatchNorm2d,
}


class Gan(nn.Module):
    """A generator and a critic; a task trains each against the other.

    Args:
        generator: from noise (n, latent_size) to images (n, *image_shape).
        critic: from images to scores, (n,) or (n, 1).
        latent_size: numbers from which one image is made.
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, latent_size: int) -> None:
        super().__init__()
        self.generator = generator
        self.critic = critic
        self.latent_size = latent_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The critic's scores of images."""
        scores: torch.Tensor = self.critic(images)
        return scores


def dcgan(
    input_shape: Sequence[int],
    latent_size: int = 32,
    channels: Sequence[int] = (64, 32),
    generator_norm: str = "layer",
    critic_norm: str = "none",
) -> Gan:
    """Transposed convolutions against strided ones: Radford, Metz and Chintala, ICLR 2016.

    Args:
        input_shape: (channels, height, width) of an image with values in [0, 1]; height and width
            must be multiples of 2 to the number of blocks.
        latent_size: numbers from which one image is made.
        channels: channels of the generator from its smallest picture on; each block doubles height
            and width, and the critic has the same ones in reverse order.
        generator_norm, critic_norm: none, layer, or batch (which couples the images of a rank, so
            that results depend on the split; and does not go with a gradient penalty).

    Raises:
        ConfigError: if an argument is not as described.
    """
    check_width("latent_size", latent_size)
    check_widths("channels", channels)
    for key, norm in (("generator_norm", generator_norm), ("critic_norm", critic_norm)):
        if norm not in NORMS:
            raise ConfigError(unknown("norm", norm, NORMS), where=f"model.{key}")
    factor = 2 ** len(channels)
    is_image = len(input_shape) == 3
    if not channels or not is_image or any(length % factor for length in input_shape[1:]):
        raise ConfigError(
            f"dcgan needs at least one block, and images of (channels, height, width) whose sides "
            f"are multiples of {factor} for {len(channels)} of them "
            f"(shape: {tuple(input_shape)})",
            where="model.channels",
            hint="give fewer channels, one for each doubling of height and width",
        )
    small = (channels[0], input_shape[1] // factor, input_shape[2] // factor)
    generator = _generator(latent_size, small, [*channels[1:], input_shape[0]], generator_norm)
    critic = _critic(small, [input_shape[0], *reversed(channels)], critic_norm)
    return Gan(generator, critic, latent_size)


def _generator(
    latent_size: int, small: tuple[int, int, int], after: Sequence[int], norm: str
) -> nn.Module:
    before, height, width = small
    layers: list[nn.Module] = [
        nn.Linear(latent_size, before * height * width),
        nn.Unflatten(1, small),
        NORMS[norm](before),
        nn.ReLU(),
    ]
    for place, count in enumerate(after):
        layers.append(nn.ConvTranspose2d(before, count, 4, stride=2, padding=1))
        if place < len(after) - 1:
            layers += [NORMS[norm](count), nn.ReLU()]
        before = count
    return nn.Sequential(*layers, nn.Sigmoid())


def _critic(small: tuple[int, int, int], channels: Sequence[int], norm: str) -> nn.Module:
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(pairwise(channels)):
        layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
        if place > 0:
            layers.append(NORMS[norm](after))
        layers.append(nn.LeakyReLU(0.2))
    count, height, width = small
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(count * height * width, 1))
