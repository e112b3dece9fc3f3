"""Half of the bits: values travel as 16-bit numbers, and are added up as what they were.

    3 parties, n elements in 3 parts           a: rounded to 16 bits    S: sum, rounded to 16 bits

    party   1 swap parts     2 add its part       3 gather
     0      a00 a10 a20      S0 = a00+a10+a20     S0 S1 S2         apq: part q of party p
     1      a01 a11 a21      S1 = a01+a11+a21     S0 S1 S2
     2      a02 a12 a22      S2 = a02+a12+a22     S0 S1 S2

What rounding takes away is left for the next time: each party's own in step 1, and that of a sum in
step 2 with the party that made it. float16 has few exponents: all values are multiplied by one
power of two, as large as keeps every sum finite, which the parties agree on before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hpc_train.comm.compression.terms import Matrix, Stateless, Terms
from hpc_train.comm.compression.wire import Array, Wire

_LARGEST = 60_000.0  # of float16, with some room for rounding


class Halves(Stateless):
    """The sum of values that travel as 16-bit numbers.

    Args:
        half: float16 or bfloat16.
    """

    def __init__(self, wire: Wire, like: torch.Tensor, half: torch.dtype) -> None:
        self._wire = wire
        self._half = half
        size, parties = like.numel(), wire.size
        part = -(-size // parties)
        start = min(size, wire.rank * part)
        self._own = slice(start, min(size, start + part))
        self._sent = torch.zeros(parties, part, dtype=half)
        self._total = torch.zeros(part, dtype=like.dtype)
        self._wide = torch.zeros_like(self._total)
        scaled = half is torch.float16
        self.rounds = 3 if scaled else 2
        self.sent_bytes = 2 * (parties - 1) * part * 2

    def sum(self, values: torch.Tensor, left: torch.Tensor) -> None:
        """Replace `values` by their sum, rounded; `left` gets what rounding took away."""
        scale = self._scale(values)
        if not math.isfinite(scale):
            values.fill_(math.nan)
            return
        size = values.numel()
        sent = self._sent.view(-1)[:size]
        sent.copy_(torch.mul(values, scale, out=left) if scale != 1 else values)
        # powers of two: scaling back and forth is exact
        torch.sub(values, left.copy_(sent).mul_(1 / scale), out=left)
        rounded = self._add_up()
        total, wide = self._total, self._wide.copy_(rounded)
        lost = total.sub_(wide)[: self._own.stop - self._own.start]
        left[self._own].add_(lost, alpha=1 / scale)
        everyone = self._wire.gather(_bits(rounded)).reshape(-1)
        values.copy_(torch.from_numpy(everyone).view(self._half)[:size]).mul_(1 / scale)

    def _add_up(self) -> torch.Tensor:
        """The sum of this party's part, in the order of parties, rounded."""
        came = torch.from_numpy(self._wire.swap(_bits(self._sent))).view(self._half)
        self._total.zero_()
        for row in came:
            self._total.add_(row)
        return self._total.to(self._half)

    def _scale(self, values: torch.Tensor) -> float:
        """What makes the largest possible sum just fit; not finite if a value is not."""
        if self._half is not torch.float16:
            return 1.0
        bound = float(values.abs().max()) if values.numel() else 0.0
        bounds = self._wire.gather(np.array([bound]))
        return power_of_two(float(bounds.max()), self._wire.size)


def power_of_two(bound: float, parties: int) -> float:
    """The largest power of two, within 2^+-100, by which `bound` may be multiplied: pure.

    Args:
        bound: the largest absolute value of all parties; NaN or infinite gives NaN.
        parties: how many of them may be added up.
    """
    if not math.isfinite(bound):
        return math.nan
    if bound == 0:
        return 1.0
    return 2.0 ** max(-100, min(100, math.floor(math.log2(_LARGEST / bound / parties))))


def _bits(halves: torch.Tensor) -> Array:
    """The same memory as whole numbers of 16 bits, which every MPI can send."""
    return halves.view(torch.int16).numpy()


def fp16(wire: Wire, like: torch.Tensor, matrices: Sequence[Matrix], terms: Terms) -> Halves:
    """Values travel as float16: 11 significant bits, scaled to fit."""
    return Halves(wire, like, torch.float16)


def bf16(wire: Wire, like: torch.Tensor, matrices: Sequence[Matrix], terms: Terms) -> Halves:
    """Values travel as bfloat16: 8 significant bits, the exponents of float32."""
    return Halves(wire, like, torch.bfloat16)
