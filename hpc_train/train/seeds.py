"""Randomness without state: every generator is derived from what it is for, when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpc_train.philox import derive

WEIGHTS = 16  # stream of initial weights
DROPOUT = 17  # stream of a micro-batch's randomness


def seed_weights(seed: int) -> None:
    """Seed torch for the making of a model."""
    torch.manual_seed(derive(seed, WEIGHTS))


def seed_micro_batch(
    seed: int, epoch: int, batch: int, position: int, device: torch.device
) -> None:
    """Seed torch for the micro-batch that begins at sample `position` of a global batch.

    The generators are seeded one by one: `torch.manual_seed` collects a stack trace for each GPU
    that is not in use yet, which costs a millisecond a call, and memory.
    """
    value = derive(seed, DROPOUT, epoch, batch, position)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Make a model under the run's seed; torch's generators are as before afterwards."""
    with torch.random.fork_rng():
        seed_weights(seed)
        yield
