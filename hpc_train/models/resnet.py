"""A residual convolutional network for images: He et al., CVPR 2016, with norms before layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from hpc_train.errors import ConfigError, unknown
from hpc_train.models.layers import activation as make_activation
from hpc_train.models.layers import check_dropout, check_width, check_widths

# what stands before a convolution, for a number of channels; "batch" alone couples samples
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
    "batch": nn.BatchNorm2d,
    "none": lambda channels: nn.Identity(),
}


class Block(nn.Module):
    """Norm, activation and convolution (3x3), twice, beside a connection around them."""

    def __init__(self, before: int, after: int, stride: int, norm: str, activation: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            NORMS[norm](before),
            make_activation(activation),
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            NORMS[norm](after),
            make_activation(activation),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
        )
        is_same = before == after and stride == 1
        self.around = nn.Identity() if is_same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, before, h, w) to (n, after, h / stride, w / stride)."""
        added: torch.Tensor = self.around(x) + self.inner(x)
        return added


class ResNet(nn.Module):
    """Stages of blocks, a mean over the picture, and a head; made by `resnet`."""

    def __init__(self, features: nn.Sequential, head: nn.Linear, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images, shape (n, channels of the last stage)."""
        means: torch.Tensor = self.features(images).mean((2, 3))
        return means

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of images, shape (n, num_classes)."""
        scores: torch.Tensor = self.head(self.dropout(self.encode(images)))
        return scores


def resnet(
    input_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 2,
    norm: str = "group",
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """Stages of residual blocks; each stage but the first halves height and width.

    Args:
        input_shape: (channels, height, width) of an image.
        num_classes: number of outputs.
        channels: channels of each stage.
        blocks: residual blocks of each stage; the depth is 2 * blocks * stages + 2.
        norm: group, batch (see model.sync_batchnorm) or none.
        activation: relu, tanh, gelu or silu.
        dropout: probability with which features are dropped in training, in [0, 1).

    Raises:
        ConfigError: if an argument is not as described.
    """
    check_widths("channels", channels)
    check_width("num_classes", num_classes)
    check_width("blocks", blocks)
    check_dropout(dropout)
    if norm not in NORMS:
        raise ConfigError(unknown("norm", norm, NORMS), where="model.norm")
    if len(input_shape) != 3 or not channels:
        raise ConfigError(
            f"resnet needs at least one stage, and images of (channels, height, width) "
            f"(shape: {tuple(input_shape)}, model.channels: {list(channels)})"
        )
    before = channels[0]
    layers: list[nn.Module] = [nn.Conv2d(input_shape[0], before, 3, padding=1, bias=False)]
    for stage, after in enumerate(channels):
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            layers.append(Block(before, after, stride, norm, activation))
            before = after
    layers += [NORMS[norm](before), make_activation(activation)]
    return ResNet(nn.Sequential(*layers), nn.Linear(before, num_classes), dropout)
