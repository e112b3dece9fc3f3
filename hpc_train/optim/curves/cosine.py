"""Cosines (Loshchilov and Hutter, SGDR, ICLR 2017)."""

from __future__ import annotations

import math

from hpc_train.optim.curves.shape import Shape


def between(high: float, low: float, progress: float) -> float:
    """Half a cosine from `high` at progress 0 to `low` at 1."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine(batch: int, shape: Shape) -> float:
    """Half a cosine from 1 down to `final` (torch's CosineAnnealingLR)."""
    return between(1.0, shape.final, min(1.0, batch / shape.length))


def cosine_restarts(batch: int, shape: Shape) -> float:
    """Such cosines one behind the other, each `growth` times as long as the one before it.

    The first takes `every` batches (torch's CosineAnnealingWarmRestarts).
    """
    length = shape.every
    if shape.growth == 1:
        batch %= length
    while batch >= length:
        batch -= length
        length *= shape.growth
    return between(1.0, shape.final, batch / length)
