"""Recurrent networks over sequences: LSTM and GRU.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 1997; Cho et al., EMNLP
2014.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from hpc_train.models.layers import check_dropout, check_width
from hpc_train.models.sequence import Entrance, check_pool, pooled

Cell = Callable[..., nn.Module]


class Recurrent(nn.Module):
    """Layers of cells; made by `lstm` and `gru`."""

    def __init__(
        self,
        entrance: Entrance,
        layers: Sequence[nn.Module],
        head: nn.Linear,
        dropout: float,
        pool: str,
    ) -> None:
        super().__init__()
        self.entrance = entrance
        self.layers = nn.ModuleList(layers)
        # not torch's own, which draws for a whole batch: this one can be keyed by sample
        self.dropout = nn.ModuleList([nn.Dropout(dropout) for _ in layers])
        self.head = head
        self._pool = pool

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Features of tokens (n, t) or vectors (n, t, f): (n, t, width), pooled (n, width)."""
        x = self.entrance(x)
        for layer, dropout in zip(self.layers, self.dropout, strict=True):
            x = dropout(layer(x)[0])
        return pooled(x, self._pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of shape (n, t, num_classes), or (n, num_classes) if pooled."""
        scores: torch.Tensor = self.head(self.encode(x))
        return scores


def _recurrent(
    cell: Cell,
    input_shape: Sequence[int],
    num_classes: int,
    num_tokens: int | None = None,
    layers: int = 2,
    width: int = 128,
    embedding: int | None = None,
    bidirectional: bool = False,
    pool: str = "none",
    dropout: float = 0.0,
) -> nn.Module:
    for key, value in (("layers", layers), ("width", width), ("num_classes", num_classes)):
        check_width(key, value)
    if embedding is not None:
        check_width("embedding", embedding)
    check_dropout(dropout)
    check_pool(pool)
    before = embedding or width
    entrance = Entrance(input_shape, num_tokens, before, "a recurrent network")
    stack = []
    for _ in range(layers):
        stack.append(cell(before, width, batch_first=True, bidirectional=bidirectional))
        before = width * (2 if bidirectional else 1)
    return Recurrent(entrance, stack, nn.Linear(before, num_classes), dropout, pool)


def lstm(
    input_shape: Sequence[int],
    num_classes: int,
    num_tokens: int | None = None,
    layers: int = 2,
    width: int = 128,
    embedding: int | None = None,
    bidirectional: bool = False,
    pool: str = "none",
    dropout: float = 0.0,
) -> nn.Module:
    """Long short-term memory over sequences, which begins each of them with an empty memory.

    Args:
        input_shape: (length,) of tokens, (length, features) of vectors; other lengths go, too.
        num_classes: number of outputs, of each position or of the sequence.
        num_tokens: different tokens; None for vectors.
        layers, width: layers of cells, and cells of each.
        embedding: numbers per token or vector before the first layer; by default `width`.
        bidirectional: each layer also reads backwards; not for predicting what comes next.
        pool: none (an output for each position), mean or last.
        dropout: probability with which outputs of each layer are dropped in training, in [0, 1).

    Raises:
        ConfigError: if an argument is not as described.
    """
    return _recurrent(
        nn.LSTM,
        input_shape,
        num_classes,
        num_tokens,
        layers,
        width,
        embedding,
        bidirectional,
        pool,
        dropout,
    )


def gru(
    input_shape: Sequence[int],
    num_classes: int,
    num_tokens: int | None = None,
    layers: int = 2,
    width: int = 128,
    embedding: int | None = None,
    bidirectional: bool = False,
    pool: str = "none",
    dropout: float = 0.0,
) -> nn.Module:
    """Gated recurrent units over sequences; arguments as those of `lstm`.

    Raises:
        ConfigError: if an argument is not as described.
    """
    return _recurrent(
        nn.GRU,
        input_shape,
        num_classes,
        num_tokens,
        layers,
        width,
        embedding,
        bidirectional,
        pool,
        dropout,
    )
