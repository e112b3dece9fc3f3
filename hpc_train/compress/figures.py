"""What a network costs: bytes, parameters, operations, seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

BATCHES = (1, 64)


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        size_bytes: of its file.
        parameters: numbers that it consists of, buffers left out.
        nonzero: those that are not 0.
        flops: floating-point operations for one sample (2 a multiplication); those of an int8
            network are the same in number.
        latency_ms: median milliseconds of a forward pass, by the size of the batch.
    """

    size_bytes: int
    parameters: int
    nonzero: int
    flops: int
    latency_ms: dict[int, float]


def parameters(model: nn.Module) -> tuple[int, int]:
    """(how many parameters a network has, how many of them are not 0)."""
    tensors = list(model.parameters())
    return sum(t.numel() for t in tensors), sum(int(t.count_nonzero()) for t in tensors)


def flops(model: nn.Module, example: torch.Tensor) -> int:
    """Operations of convolutions and matrix products for one sample.

    Args:
        example: what the model takes, shape (n, ...).
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(example)
    return round(counter.get_total_flops() / len(example))


def latency_ms(
    one: nn.Module,
    other: nn.Module,
    example: torch.Tensor,
    *,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median milliseconds of a forward pass of two networks, measured in turns.

    Args:
        example: what both take, shape (n, ...).
        seconds: how long is measured; at least 5 passes of each.
    """
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for model in (one, other):
            for _ in range(3):
                model(example)
        end = clock() + seconds
        while len(times[0]) < 5 or clock() < end:
            for model, own in zip((one, other), times, strict=True):
                start = clock()
                model(example)
                own.append(clock() - start)
    first, second = (statistics.median(own) * 1e3 for own in times)
    return first, second
