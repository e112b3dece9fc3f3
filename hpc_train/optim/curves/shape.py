"""What the curves of the learning rate are told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What a curve may depend on; each takes what it knows of it.

    Attributes:
        length: global batches from the end of the warm-up to the end of the run, >= 1.
        final: where a curve ends, or the smallest factor, in [0, 1].
        every: global batches of a step, of a time unit of a decay, or of the first cycle, >= 1.
        gamma: factor of a step or a time unit; of the inverse-time decay, its rate; >= 0.
        power: of the polynomial, > 0.
        growth: length of each further cycle over the one before it, >= 1.
        start: where one cycle begins, in [0, 1].
        peak: when one cycle is at 1, as a part of the length, in (0, 1).
    """

    length: int
    final: float = 0.0
    every: int = 1
    gamma: float = 0.1
    power: float = 1.0
    growth: int = 1
    start: float = 0.04
    peak: float = 0.3
