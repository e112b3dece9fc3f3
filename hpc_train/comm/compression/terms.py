"""What gradient compression is told, and what each way to compress must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from hpc_train.comm.compression.wire import Wire


@dataclass(frozen=True)
class Terms:
    """What compression is told.

    Attributes:
        name: "none", "auto" (where it pays), or a name in `COMPRESSORS`.
        density: part of all elements that `topk` sends, in (0, 1].
        rank: rank of the matrices that `powersgd` sends, >= 1.
    """

    name: str = "none"
    density: float = 0.01
    rank: int = 2


@dataclass(frozen=True)
class Matrix:
    """Where the weights of one parameter lie in a flat buffer.

    Attributes:
        start: the first of them.
        shape: rows (the first dimension) and columns (all others); (1, n) for a vector.
    """

    start: int
    shape: tuple[int, int]

    @property
    def stop(self) -> int:
        """Behind the last of them."""
        return self.start + self.shape[0] * self.shape[1]


class Compressor(Protocol):
    """A sum over parties of which only a part travels.

    What it leaves out is not lost: over all parties, sum + what is left = sum of the values.

    Attributes:
        rounds: how many times all parties hear of each other in one sum.
        sent_bytes: what a party sends and what it gets in one sum, whichever is more.
    """

    rounds: int
    sent_bytes: int

    def sum(self, values: torch.Tensor, left: torch.Tensor) -> None:
        """Replace `values` by about their sum over all parties, the same to the bit on all.

        If any value of any party is not finite, the sum holds some that are not.

        Args:
            values: shape (n,), on the CPU.
            left: the same shape and type; is overwritten with what this party has not sent.
        """

    def commit(self) -> None:
        """The last sum counts: begin the next one with what was learned from it."""

    def tensors(self) -> dict[int, torch.Tensor]:
        """What was learned, the same on all parties, by where in the buffer it belongs."""

    def restore(self, tensors: Mapping[int, torch.Tensor]) -> None:
        """Take up what `tensors` told; what is missing begins anew."""


class Build(Protocol):
    """Makes a compressor for buffers of one layout."""

    def __call__(
        self, wire: Wire, like: torch.Tensor, matrices: Sequence[Matrix], terms: Terms
    ) -> Compressor:
        """A compressor of tensors like `like`, shape (n,), in which `matrices` lie, in order."""


class Stateless:
    """A compressor that learns nothing."""

    def commit(self) -> None:
        """Nothing was learned."""

    def tensors(self) -> dict[int, torch.Tensor]:
        """Nothing."""
        return {}

    def restore(self, tensors: Mapping[int, torch.Tensor]) -> None:
        """Nothing to take up."""
