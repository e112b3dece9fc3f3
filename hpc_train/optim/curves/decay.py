"""Curves that fall without regard to the length of the run."""

from __future__ import annotations

import math

from hpc_train.optim.curves.shape import Shape


def step(batch: int, shape: Shape) -> float:
    """`gamma` for each `every` batches that are over (torch's StepLR)."""
    return max(shape.final, math.pow(shape.gamma, batch // shape.every))


def exponential(batch: int, shape: Shape) -> float:
    """`gamma` to the power of the time in units of `every` batches (torch's ExponentialLR)."""
    return max(shape.final, math.pow(shape.gamma, batch / shape.every))


def inverse_time(batch: int, shape: Shape) -> float:
    """1 / (1 + gamma time), time in units of `every` batches (Robbins and Monro, 1951)."""
    return max(shape.final, 1 / (1 + shape.gamma * batch / shape.every))
