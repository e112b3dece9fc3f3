"""A transformer over sequences of tokens or of vectors.

    tokens (n, t) -- embedding --+                                      none (n, t, num_classes)
    vectors (n, t, f) -- linear -+- positions - blocks - norm - pool -- mean (n, num_classes)
                                                                        last (n, num_classes)

Vaswani et al., "Attention is all you need", NeurIPS 2017; norms before the layers and scaled first
weights as in Radford et al., "Language models are unsupervised multitask learners", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from hpc_train.errors import ConfigError, unknown
from hpc_train.models.layers import check_dropout, check_width
from hpc_train.models.sequence import Entrance, check_pool, pooled

_STD = 0.02  # of first weights


class Attention(nn.Module):
    """Multi-head self-attention by torch's scaled_dot_product_attention."""

    def __init__(self, width: int, heads: int, *, causal: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.project = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, t, width) to the same."""
        n, t, width = x.shape
        split = self.project(x).view(n, t, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (n, heads, t, width / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return out


class Block(nn.Module):
    """Attention and a two-layer network, each after a norm and beside a connection around it."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, *, causal: bool, bias: bool
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, causal=causal, bias=bias)
        self.hidden_norm = nn.LayerNorm(width, bias=bias)
        self.hidden = nn.Linear(width, hidden, bias=bias)
        self.activation = nn.GELU()
        self.out = nn.Linear(hidden, width, bias=bias)
        self.dropout = nn.ModuleList([nn.Dropout(dropout), nn.Dropout(dropout)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, t, width) to the same."""
        x = x + self.dropout[0](self.attention(self.attention_norm(x)))
        inner = self.out(self.activation(self.hidden(self.hidden_norm(x))))
        added: torch.Tensor = x + self.dropout[1](inner)
        return added


class Learned(nn.Module):
    """A vector for each position, learned."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width).normal_(std=_STD))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (n, t, width) with the first t positions added."""
        return x + self.weight[: x.shape[1]]


class Sinusoidal(nn.Module):
    """Sines and cosines of 10000^(-2i / width) times the position: Vaswani et al., section 3.5."""

    table: torch.Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10000.0) / width * torch.arange(0, width, 2).double())
        angles = torch.arange(length).double()[:, None] * rates  # (length, width / 2)
        table = torch.stack((angles.sin(), angles.cos()), dim=2).reshape(length, width)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (n, t, width) with the first t positions added."""
        return x + self.table[: x.shape[1]].to(x.dtype)


POSITIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "learned": Learned,
    "sinusoidal": Sinusoidal,
    "none": lambda length, width: nn.Identity(),
}


class Transformer(nn.Module):
    """See the top of this file; made by `transformer`."""

    def __init__(
        self,
        entrance: Entrance,
        positions: nn.Module,
        blocks: Sequence[Block],
        head: nn.Linear,
        *,
        dropout: float,
        pool: str,
        bias: bool,
    ) -> None:
        super().__init__()
        self.entrance, self.positions = entrance, positions
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(head.in_features, bias=bias)
        self.head = head
        self._pool = pool

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Features of tokens (n, t) or vectors (n, t, f): (n, t, width), pooled (n, width)."""
        x = self.dropout(self.positions(self.entrance(x)))
        for block in self.blocks:
            x = block(x)
        return pooled(self.norm(x), self._pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of shape (n, t, num_classes), or (n, num_classes) if pooled."""
        scores: torch.Tensor = self.head(self.encode(x))
        return scores


def transformer(
    input_shape: Sequence[int],
    num_classes: int,
    num_tokens: int | None = None,
    layers: int = 4,
    heads: int = 4,
    width: int = 128,
    hidden: int | None = None,
    causal: bool = True,
    positions: str = "learned",
    pool: str = "none",
    dropout: float = 0.0,
    bias: bool = False,
    tie: bool = True,
) -> nn.Module:
    """Blocks of attention over sequences.

    Args:
        input_shape: (length,) of tokens, (length, features) of vectors; shorter ones go, too.
        num_classes: number of outputs, of each position or of the sequence.
        num_tokens: different tokens; None for vectors.
        layers, heads, width: blocks, attention heads of each, and numbers per position; the width
            is a multiple of the heads.
        hidden: width of the inner layer of each block; by default 4 times `width`.
        causal: a position sees itself and those before it; otherwise all.
        positions: learned, sinusoidal or none.
        pool: none (an output for each position), mean or last.
        dropout: probability of dropping outputs of the entrance and of each half block, in [0, 1).
        bias: linear layers and norms have biases.
        tie: the head shares the weights of the tokens' embedding, where it has as many outputs.

    Raises:
        ConfigError: if an argument is not as described.
    """
    inner = 4 * width if hidden is None else hidden
    widths = {"layers": layers, "heads": heads, "width": width, "hidden": inner}
    for key, value in {**widths, "num_classes": num_classes}.items():
        check_width(key, value)
    check_dropout(dropout)
    check_pool(pool)
    _check_positions(positions, width, heads)
    entrance = Entrance(input_shape, num_tokens, width, "transformer")
    blocks = [Block(width, heads, inner, dropout, causal=causal, bias=bias) for _ in range(layers)]
    place = POSITIONS[positions](input_shape[0], width)
    head = nn.Linear(width, num_classes, bias=bias)
    network = Transformer(entrance, place, blocks, head, dropout=dropout, pool=pool, bias=bias)
    _begin(network, blocks)
    if tie and num_tokens == num_classes:
        head.weight = entrance.embedding.weight  # type: ignore[assignment]
    return network


def _check_positions(positions: str, width: int, heads: int) -> None:
    """Check that the width can be divided as heads and positions need it."""
    if width % heads or (width % 2 and positions == "sinusoidal"):
        raise ConfigError(
            "model.width must be a multiple of model.heads, and even for sinusoidal positions "
            f"(model.width: {width}, model.heads: {heads})"
        )
    if positions not in POSITIONS:
        raise ConfigError(unknown("positions", positions, POSITIONS), where="model.positions")


def _begin(network: nn.Module, blocks: Sequence[Block]) -> None:
    """First weights: small, and those that end a block smaller the more blocks there are."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in blocks:
        for layer in (block.attention.out, block.out):
            nn.init.normal_(layer.weight, std=_STD / math.sqrt(2 * len(blocks)))
