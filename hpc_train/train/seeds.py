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


def seed_micro_batch(seed: int, epoch: int, batch: int, position: int) -> None:
    """Seed torch for the micro-batch that begins at sample `position` of a global batch."""
    torch.manual_seed(derive(seed, DROPOUT, epoch, batch, position))


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Make a model under the run's seed; torch's generators are as before afterwards."""
    with torch.random.fork_rng():
        seed_weights(seed)
        yield
