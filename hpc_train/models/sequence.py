"""What networks over sequences share: how they begin, and how positions become one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hpc_train.errors import ConfigError, unknown
from hpc_train.models.layers import check_width

POOLS = ("none", "mean", "last")


class Entrance(nn.Module):
    """From tokens (n, t) or vectors (n, t, f) to (n, t, width).

    Args:
        input_shape: (t,) or (t, f).
        num_tokens: different tokens; None for vectors. Single numbers (n, t) are vectors of one.
        width: numbers per position.
        name: of the network, for messages.

    Raises:
        ConfigError: if the inputs are no sequences.
    """

    def __init__(
        self, input_shape: Sequence[int], num_tokens: int | None, width: int, name: str
    ) -> None:
        super().__init__()
        if len(input_shape) not in (1, 2) or (num_tokens is not None and len(input_shape) != 1):
            raise ConfigError(
                f"{name} needs tokens of shape (length,) or vectors of shape (length, features) "
                f"(shape: {tuple(input_shape)})",
                where="data.inputs",
                hint="data.window makes sequences of the rows of a series",
            )
        self.embedding: nn.Module
        self._single = num_tokens is None and len(input_shape) == 1
        if num_tokens is not None:
            check_width("num_tokens", num_tokens)
            self.embedding = nn.Embedding(num_tokens, width)
        else:
            self.embedding = nn.Linear(1 if self._single else input_shape[1], width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As described above."""
        embedded: torch.Tensor = self.embedding(x[..., None] if self._single else x)
        return embedded


def check_pool(pool: str) -> None:
    """Check that `pool` is known.

    Raises:
        ConfigError: listing what is.
    """
    if pool not in POOLS:
        raise ConfigError(unknown("pool", pool, POOLS), where="model.pool")


def pooled(x: torch.Tensor, pool: str) -> torch.Tensor:
    """One vector (n, width) of each sequence (n, t, width), or all of them for "none"."""
    if pool == "none":
        return x
    return x.mean(1) if pool == "mean" else x[:, -1]
