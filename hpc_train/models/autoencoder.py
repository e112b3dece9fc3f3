"""Autoencoders: dense or convolutional, plain or variational.

    x --encoder--> code --decoder--> reconstruction                              plain
    x --encoder--> mean, log variance --> code ~ N(mean, variance) --decoder-->  variational

Hinton and Salakhutdinov, Science 2006; Kingma and Welling, "Auto-encoding variational Bayes", ICLR
2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.models.layers import activation as make_activation
from hpc_train.models.layers import check_width, check_widths


class Autoencoder(nn.Module):
    """An encoder and a decoder.

    Args:
        encoder: from inputs (n, *input_shape) to codes (n, latent_size).
        decoder: from codes to reconstructions (n, *input_shape).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The codes of inputs, shape (n, latent_size)."""
        code: torch.Tensor = self.encoder(x)
        return code

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """The reconstructions that codes stand for, shape (n, *input_shape)."""
        x: torch.Tensor = self.decoder(code)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The reconstructions of inputs."""
        return self.decode(self.encode(x))


class VariationalAutoencoder(Autoencoder):
    """The encoder gives a normal distribution of codes: (n, 2 * latent_size)."""

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and logarithms of the variances of the codes, each of shape (n, latent_size)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean codes of inputs, shape (n, latent_size)."""
        return self.posterior(x)[0]


def autoencoder(
    input_shape: Sequence[int],
    latent_size: int = 16,
    hidden: Sequence[int] = (128,),
    activation: str = "relu",
    variational: bool = False,
) -> Autoencoder:
    """Fully connected layers to a code and back.

    Args:
        input_shape: shape of one input.
        latent_size: numbers of a code.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse order.
        activation: relu, tanh, gelu or silu.
        variational: the encoder gives a distribution of codes.

    Raises:
        ConfigError: if an argument is not as described.
    """
    check_width("latent_size", latent_size)
    check_widths("hidden", hidden)
    size = math.prod(input_shape)
    codes = latent_size * (2 if variational else 1)
    encoder = nn.Sequential(nn.Flatten(), *_dense([size, *hidden, codes], activation))
    widths = [latent_size, *reversed(hidden), size]
    decoder = nn.Sequential(*_dense(widths, activation), nn.Unflatten(1, tuple(input_shape)))
    return (VariationalAutoencoder if variational else Autoencoder)(encoder, decoder)


def conv_autoencoder(
    input_shape: Sequence[int],
    latent_size: int = 16,
    channels: Sequence[int] = (32, 64),
    activation: str = "relu",
    variational: bool = False,
) -> Autoencoder:
    """Strided convolutions to a code, transposed ones back.

    Args:
        input_shape: (channels, height, width) of an image whose sides are multiples of 2 to the
            number of blocks.
        latent_size: numbers of a code.
        channels: channels of each block, each halves height and width.
        activation: relu, tanh, gelu or silu.
        variational: the encoder gives a distribution of codes.

    Raises:
        ConfigError: if an argument is not as described.
    """
    check_width("latent_size", latent_size)
    check_widths("channels", channels)
    factor = 2 ** len(channels)
    if len(input_shape) != 3 or not channels or any(side % factor for side in input_shape[1:]):
        raise ConfigError(
            f"conv_autoencoder needs at least one block, and images whose sides are multiples of "
            f"{factor} for {len(channels)} of them (shape: {tuple(input_shape)})",
            where="model.channels",
            hint='give fewer channels, or use model.name = "autoencoder"',
        )
    small = (channels[-1], input_shape[1] // factor, input_shape[2] // factor)
    codes = latent_size * (2 if variational else 1)
    before, down = input_shape[0], []
    for after in channels:
        down += [nn.Conv2d(before, after, 3, 2, 1), make_activation(activation)]
        before = after
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(small), codes))
    up: list[nn.Module] = [nn.Linear(latent_size, math.prod(small)), nn.Unflatten(1, small)]
    for after in [*reversed(channels[:-1]), input_shape[0]]:
        up += [make_activation(activation), nn.ConvTranspose2d(before, after, 4, 2, 1)]
        before = after
    kind = VariationalAutoencoder if variational else Autoencoder
    return kind(encoder, nn.Sequential(*up))


def _dense(widths: Sequence[int], activation: str) -> list[nn.Module]:
    """Linear layers between `widths`, activations between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), make_activation(activation)]
    return layers[:-1]
